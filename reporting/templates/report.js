/* The frame: tables are sorted, a run is chosen, and what is heavy is made when it is seen. */

/** Return a new element with properties and children; strings become text. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Return a number of things in words. */
function plural(count, thing) {
  return `${count.toLocaleString("en")} ${thing}${count === 1 ? "" : "s"}`;
}

const unseen = new Map(); // an element that has not been in view → what shows it

/** Call `show` when an element first comes into view, or is printed. */
function onceSeen(watched, show) {
  const observer = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) unseen.get(watched)();
  }, { rootMargin: "200px" });
  unseen.set(watched, () => {
    observer.disconnect();
    unseen.delete(watched);
    show();
  });
  observer.observe(watched);
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
  for (const [watched, show] of unseen) if (watched.checkVisibility()) show();
});
openTarget();
