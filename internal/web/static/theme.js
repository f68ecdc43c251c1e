// Sets the theme before anything is painted.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");
  let theme = null;
  try { theme = localStorage.getItem("tranter-theme"); } catch { /* it is forbidden: the system's theme it is */ }
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
})();
