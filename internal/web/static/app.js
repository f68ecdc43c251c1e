// What pages do besides being read: they follow what happens, ask before actions, and filter while one types. All works without.
(() => {
  "use strict";
  const main = () => document.getElementById("main");
  const region = document.getElementById("announce");

  // Durations and ages count on between updates, in the words of the server.
  const two = (n) => String(n).padStart(2, "0");
  function short(ms) {
    const s = Math.max(0, ms / 1000);
    if (s < 59.95) return s.toFixed(1) + "s";
    if (s < 3599.5) { const r = Math.round(s); return Math.floor(r / 60) + "m" + two(r % 60) + "s"; }
    if (s < 172800) return Math.floor(s / 3600) + "h" + two(Math.floor(s / 60) % 60) + "m";
    return Math.floor(s / 86400) + "d" + two(Math.floor(s / 3600) % 24) + "h";
  }
  let skew = 0; // of this clock against the server's, in ms
  function setSkew(doc) {
    const at = Date.parse(doc.querySelector("main[data-now]")?.dataset.now ?? "");
    if (at) skew = Date.now() - at;
  }
  function tick() {
    if (document.hidden) return;
    const now = Date.now() - skew;
    for (const t of document.querySelectorAll("time[data-since], time[data-ago]")) {
      const age = now - Date.parse(t.dateTime);
      if (Number.isNaN(age)) continue;
      // Tenths of a running second would only flicker.
      const text = age < 59950 ? Math.max(0, Math.floor(age / 1000)) + "s" : short(age);
      const full = t.dataset.ago === undefined ? text : text + " ago";
      if (t.textContent !== full) t.textContent = full;
    }
  }
  setInterval(tick, 1000);

  // Updates: only what differs is changed, so that focus, selection, scroll, open details and what was typed stay.
  const changedByHand = (e) =>
    e instanceof HTMLInputElement ? (e.type === "checkbox" || e.type === "radio" ? e.checked !== e.defaultChecked : e.value !== e.defaultValue)
    : e instanceof HTMLTextAreaElement ? e.value !== e.defaultValue
    : e instanceof HTMLSelectElement ? [...e.options].some((o) => o.selected !== o.defaultSelected) && [...e.options].some((o) => o.defaultSelected)
    : false;
  function morph(from, to) {
    Idiomorph.morph(from, to, {
      ignoreActiveValue: true,
      callbacks: {
        beforeNodeMorphed: (o) => !(o instanceof Element && (o.hasAttribute("data-keep") || o === document.activeElement && o.matches("input,select,textarea") || changedByHand(o))),
        beforeNodeRemoved: (o) => !(o instanceof Element && o.hasAttribute("data-keep")),
        beforeAttributeUpdated: (name, node) => !(name === "open" && node.matches("details, dialog")),
      },
    });
  }
  function announce(text) { if (region && region.textContent !== text) region.textContent = text; }
  let said = 0, saying = document.querySelector("[data-announce]")?.textContent ?? "";
  function tell() {
    const text = document.querySelector("[data-announce]")?.textContent.trim().replace(/\s+/g, " ") ?? "";
    if (!text || text === saying || Date.now() - said < 20000) return;
    said = Date.now(); saying = text; announce(text);
  }
  const fragmentURL = (href) => { const u = new URL(href, location.href); u.searchParams.set("fragment", "1"); u.hash = ""; return u; };
  let busy = null, again = false;
  async function load(href) {
    busy?.abort();
    const me = busy = new AbortController();
    try {
      const res = await fetch(fragmentURL(href), { signal: me.signal, headers: { Accept: "text/html" }, cache: "no-cache", credentials: "same-origin" });
      if (res.redirected && new URL(res.url).pathname === "/login") { location.reload(); return false; }
      if (!res.ok) return false;
      const doc = new DOMParser().parseFromString(await res.text(), "text/html");
      if (me.signal.aborted) return false;
      for (const id of ["main", "manager-state"]) {
        const from = document.getElementById(id), to = doc.getElementById(id);
        if (from && to) morph(from, to);
      }
      setSkew(document); tick(); tell();
      document.dispatchEvent(new CustomEvent("tranter:updated"));
      return true;
    } catch { return false; } finally { if (busy === me) busy = null; }
  }
  let due = false;
  async function refresh() {
    if (document.hidden || document.querySelector("dialog[open]")) { due = true; return; }
    if (busy) { again = true; return; }
    due = false;
    await load(location.href);
    if (again) { again = false; refresh(); }
  }

  // The stream tells which topics have changed. A page that nobody sees follows nothing: browsers allow few connections.
  const badge = document.getElementById("live");
  const state = (name, text) => { if (badge) { badge.dataset.state = name; badge.querySelector("span:last-child").textContent = text; } };
  let source = null, retry = 0;
  function follow() {
    const topics = (main()?.dataset.topics ?? "").split(/\s+/).filter(Boolean);
    if (!topics.length || source || document.hidden || !window.EventSource) return;
    source = new EventSource("/live?page=" + encodeURIComponent(location.pathname));
    source.addEventListener("hello", () => { state("live", "live"); refresh(); });
    for (const topic of topics) source.addEventListener(topic, refresh);
    source.onerror = () => {
      state("lost", "reconnecting");
      if (source?.readyState === EventSource.CLOSED) { source = null; clearTimeout(retry); retry = setTimeout(follow, 10000); state("lost", "not live"); }
    };
  }
  function unfollow() { source?.close(); source = null; clearTimeout(retry); }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { unfollow(); return; }
    follow();
    if (due) refresh();
  });
  window.addEventListener("pagehide", unfollow);
  window.addEventListener("pageshow", (e) => { if (e.persisted) follow(); });

  // Filters apply while one types.
  let typing = 0;
  function filter(form) {
    const u = new URL(form.action || location.href, location.href);
    u.search = "";
    for (const [name, value] of new FormData(form)) if (value !== "") u.searchParams.append(name, value);
    if (u.href === location.href) return;
    history.replaceState(null, "", u);
    load(u).then((ok) => { if (!ok && !busy) location.href = u; });
  }
  document.addEventListener("input", (e) => {
    const form = e.target.closest?.("form[data-filter]");
    if (!form) return;
    clearTimeout(typing);
    typing = setTimeout(() => filter(form), e.target.matches("input:not([type=checkbox])") ? 250 : 0);
  });

  // Actions are asked for in a dialog; without JavaScript on a page of its own.
  const dialog = document.getElementById("confirm");
  document.addEventListener("submit", (e) => {
    const form = e.target;
    if (form.matches("form[data-filter]")) { e.preventDefault(); clearTimeout(typing); filter(form); return; }
    if (!form.dataset.confirm || form.elements.confirm || !dialog?.showModal) return;
    e.preventDefault();
    dialog.querySelector("p").textContent = form.dataset.confirm;
    const yes = dialog.querySelector("button[value=yes]");
    yes.textContent = form.dataset.button || form.querySelector("button")?.textContent || "Yes";
    dialog.onclose = () => {
      if (dialog.returnValue === "yes") {
        const field = document.createElement("input");
        field.type = "hidden"; field.name = "confirm"; field.value = "yes";
        form.append(field);
        form.submit();
      } else if (due) refresh();
    };
    dialog.returnValue = "";
    dialog.showModal();
  });

  // Theme: as the system, light, dark.
  const toggle = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  function showTheme() {
    if (!toggle) return;
    const now = document.documentElement.dataset.theme ?? "auto";
    toggle.dataset.now = now;
    toggle.querySelector(".word").textContent = now;
    toggle.title = "Theme: " + now;
  }
  toggle?.addEventListener("click", () => {
    const root = document.documentElement;
    const next = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
    if (next === "auto") delete root.dataset.theme; else root.dataset.theme = next;
    try { localStorage.setItem("tranter-theme", next); } catch { /* then it holds for this page */ }
    showTheme();
    document.dispatchEvent(new CustomEvent("tranter:theme"));
  });
  showTheme();

  document.addEventListener("keydown", (e) => {
    if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey || e.target.closest?.("input,select,textarea,[contenteditable]")) return;
    const search = document.getElementById("search");
    if (search) { e.preventDefault(); search.focus(); search.select(); }
  });

  window.tranter = { refresh, morph, announce, short, load };
  setSkew(document); tick(); follow();
})();
