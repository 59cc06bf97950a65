"""Results as people read them: tables, figures and one page, all drawn from grid.json and runs.parquet."""
