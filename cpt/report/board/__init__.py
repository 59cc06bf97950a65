"""The board: results of several people side by side, in one page."""
