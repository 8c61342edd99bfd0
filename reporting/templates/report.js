"use strict";
/* The frame: tables are sorted, a run is chosen, and what is heavy is made when it is seen. */

/** Run plotly, which takes a second that a page without a chart in view need not spend. */
function startPlotly() {
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = document.getElementById("plotly").textContent;
  document.head.append(script); // the page's policy knows it by its hash
}

/** Call `make` with an element when it first comes into view; then plotly is there. */
function onceSeen(element, make) {
  new IntersectionObserver((entries, observer) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      observer.disconnect();
      startPlotly();
      make(element);
    }
  }, { rootMargin: "200px" }).observe(element);
}

/** Return a colour of the page, such as "--ink", in the scheme that is on. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Return text for plotly, whose labels would read what looks like HTML. */
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Sort each body of a table by a column: numbers by their value, gaps last, the rest by name. */
function sortBy(header) {
  const up = header.getAttribute("aria-sort") !== "ascending";
  const number = header.classList.contains("number");
  const value = (row) => {
    const cell = row.cells[header.cellIndex];
    return number ? parseFloat(cell.dataset.value ?? cell.textContent) : cell.textContent.trim();
  };
  const order = (a, b) => {
    if (!number) return value(a).localeCompare(value(b), undefined, { numeric: true });
    return value(a) - value(b);
  };
  for (const body of header.closest("table").tBodies) {
    const rows = [...body.rows];
    const gaps = rows.filter((row) => number && Number.isNaN(value(row)));
    const sorted = rows.filter((row) => !gaps.includes(row)).sort((a, b) => (up ? 1 : -1) * order(a, b));
    body.append(...sorted, ...gaps);
  }
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
}

/** Show the one of a select's elements that is chosen. */
function choose(select) {
  for (const option of select.options) {
    document.getElementById(option.value).hidden = option.value !== select.value;
  }
}

/** Open what an address leads to, be it a category or something in one. */
function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  const closed = target && target.closest("details:not([open])");
  if (closed) {
    closed.open = true;
    target.scrollIntoView();
  }
}

for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}
for (const select of document.querySelectorAll("select[data-chooses]")) {
  select.addEventListener("change", () => choose(select));
  choose(select); // a browser may keep a choice when the page is loaded again
}
for (const box of document.querySelectorAll("input[data-shows]")) {
  const show = () => document.getElementById(box.dataset.in).classList.toggle(box.dataset.shows, box.checked);
  box.addEventListener("change", show);
  show();
}
for (const link of document.querySelectorAll("a[href^='#']")) {
  link.addEventListener("click", () => setTimeout(openTarget)); // also where the address stays
}
addEventListener("hashchange", openTarget);
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
openTarget();
