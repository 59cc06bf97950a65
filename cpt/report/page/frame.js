// What the pages share around their results: the theme, and the list of contents.

// ---- theme ------------------------------------------------------------------------------------

/** Dark or light, as the system is or the reader chose; what is drawn for one of them is drawn again. */
function theme(redraw = () => {}) {
  const button = $("#theme"), root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const set = (dark) => {
    root.style.colorScheme = dark ? "dark" : "light";
    root.classList.toggle("dark", dark);  // DataTables looks for it
    button.textContent = dark ? "Light" : "Dark";
    redraw();
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const dark = !root.classList.contains("dark");
    set(dark);
    try { localStorage.setItem("theme", dark ? "dark" : "light"); } catch { /* a file may have no storage */ }
  });
  system.addEventListener("change", (event) => remembered() ?? set(event.matches));
  set((remembered() ?? (system.matches ? "dark" : "light")) === "dark");
}

// ---- contents ---------------------------------------------------------------------------------

/** Beside the results where there is room, folded above them elsewhere. */
function contents() {
  const list = $(".contents"), wide = matchMedia("(min-width: 75rem)");
  const fit = () => { list.open = wide.matches; };
  const fold = () => { if (!wide.matches) list.open = false; };
  wide.addEventListener("change", fit);
  list.addEventListener("click", (event) => event.target.closest("a") && fold());
  list.addEventListener("keydown", (event) => event.key === "Escape" && fold());
  fit();
}
