/* Galleries: images are put into the page as they come into view; see gallery.html. */

const CHUNK = 24; // images that are put into the page at once
const ORDERS = {
  worst: () => 0, // as they come
  high: (a, b) => b.score - a.score,
  low: (a, b) => a.score - b.score,
  random: (a, b) => a.random - b.random,
  name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
};
const OUTCOMES = { // of an image that is called good, and anomalous, by the kind of its scores' group
  good: ["passed", "false alarm"],
  defect: ["missed", "found"],
  unlabelled: ["no label, called good", "no label, called anomalous"],
};
const PATIENCE = 150; // milliseconds that a threshold rests before images are called by it
const STEPS = { ArrowLeft: -1, ArrowRight: 1 };

function drawing(tag, attributes) {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) drawn.setAttribute(name, value);
  return drawn;
}

const digits = (value) => (value === undefined ? "" : String(Number(value.toPrecision(3))));

/** A picture, in base64, as wide and high as the image's `size` has it, with an outline over it. */
function panel(label, [width, height], picture = "", outline = "", kind = "") {
  const shown = element("span", { className: "gallery-picture" });
  shown.style.aspectRatio = `${width} / ${height}`;
  if (picture) shown.append(element("img", { alt: "", src: `data:image/webp;base64,${picture}` }));
  if (outline) {
    const svg = drawing("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    for (const of of ["halo", kind]) svg.append(drawing("path", { d: outline, class: of }));
    shown.append(svg);
  }
  return element("span", { className: "gallery-panel" }, shown, element("span", {}, label));
}

/** What is marked in an image; an empty place where nothing is, so that maps stand below maps. */
function truthPanel({ defect, picture: { size, image, truth } }) {
  if (truth) return panel("truth", size, image, truth, "truth");
  return panel(defect === "good" ? "no defect" : "no mask", size);
}

/** The pictures of an image side by side: itself, its truth, its map, each expert's map. */
function strip(item, data) {
  const shown = element("span", { className: "gallery-strip" });
  if (!item.picture) return element("span", {}, "no picture");
  const { size, image, contour, maps } = item.picture;
  shown.append(panel("image", size, image));
  if (data.marked) shown.append(truthPanel(item));
  for (const name of data.maps.filter((name) => name in maps)) {
    if (name === "combined") shown.append(panel("map", size, maps[name], contour, "contour"));
    else shown.append(panel(`${name} ${digits(item.experts[name])}`, size, maps[name]));
  }
  shown.style.setProperty("--across", Math.min(1, size[0] / size[1])); // of its longer side
  shown.style.setProperty("--count", shown.children.length);
  return shown;
}

function card(item, data) {
  const mark = element("span", { className: "gallery-outcome" }, item.outcome);
  mark.dataset.outcome = item.outcome;
  const words = element("span", { className: "gallery-words" });
  words.append(mark, `, score ${digits(item.score)}: `, element("bdi", {}, item.name));
  const button = element("button", { type: "button" }, words, strip(item, data));
  button.ariaLabel = `${item.outcome}, score ${digits(item.score)}, ${item.name}`;
  return element("li", {}, button);
}

function facts(item, place, count) {
  const said = [
    ["outcome", item.outcome],
    ["defect", item.defect],
    ["verdict", item.verdict],
    ["score", digits(item.score)],
    ["p-value", item.p === null ? "not known" : digits(item.p)],
    ["place", `${place + 1} of ${count}`],
  ];
  return said.map(([term, text]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, element("bdi", {}, text))));
}

/** Put an option in another's place: Chromium widens a select for a new one, not for a new text. */
function replaceOption(option, anew) {
  const { selected } = option;
  option.replaceWith(anew);
  anew.selected = selected;
}

/** Return a function that compares images at a threshold as evaluation/results.py's worst_first. */
function worstFirst(threshold) {
  const places = {
    "missed": ({ score }) => [0, score],
    "false alarm": ({ score }) => [1, -score],
    "found": ({ score }) => [2, Math.abs(score - threshold)],
    "passed": ({ score }) => [2, Math.abs(score - threshold)],
  };
  const place = (item) => (places[item.outcome] ?? (({ score }) => [3, -score]))(item);
  return (a, b) => {
    const [[first, near], [second, far]] = [place(a), place(b)];
    return first - second || near - far;
  };
}

/** A gallery's list: the images that are chosen, in the order that is chosen. */
class Gallery {
  constructor(section) {
    this.section = section;
    this.data = JSON.parse(section.querySelector("script").textContent);
    [this.list, this.end] = ["ol", ".gallery-end"].map((query) => section.querySelector(query));
    this.ends = new IntersectionObserver((seen) => {
      if (seen.some((one) => one.isIntersecting)) this.extend();
    });
    const enlarged = new Enlarged(section.querySelector("dialog"), this);
    this.list.addEventListener("click", ({ target }) => {
      const shown = target.closest("li");
      if (shown) enlarged.show([...this.list.children].indexOf(shown));
    });
    for (const name of ["outcome", "defect", "order"])
      this.control(name).addEventListener("change", () => this.choose());
    for (const button of section.querySelectorAll("[data-order]"))
      button.addEventListener("click", () => this.press(button.dataset));
    for (const item of this.data.images)
      item.kind = Object.keys(OUTCOMES).find((kind) => OUTCOMES[kind].includes(item.outcome));
    const charts = section.parentElement.querySelector(".charts");
    charts.addEventListener("threshold", () => {
      clearTimeout(this.rest);
      this.rest = setTimeout(() => this.judge(charts.scores), PATIENCE);
    });
    if (charts.scores && charts.scores.threshold !== charts.scores.data.threshold)
      this.judge(charts.scores); // it was moved before anyone came here
    else this.begin();
  }

  /** Call the images by the threshold that the figure of scores has now. */
  judge({ threshold, data: { groups, threshold: stored } }) {
    for (const item of this.data.images) {
      item.verdict = item.score > threshold ? "anomalous" : "good";
      item.outcome = OUTCOMES[item.kind][Number(item.score > threshold)];
    }
    this.data.images.sort(worstFirst(threshold));
    for (const [kind, outcomes] of Object.entries(OUTCOMES))
      called(groups, kind, threshold).forEach((number, index) =>
        this.data.outcomes[outcomes[index]] = number);
    this.section.querySelector(".gallery-threshold").textContent =
      threshold === stored ? "the stored threshold" : `a threshold of ${short(threshold)}`;
    this.begin();
  }

  /** Show the images as they are called now. */
  begin() {
    this.tellOutcomes();
    this.choose();
  }

  control(name) {
    return this.section.querySelector(`[name=${name}]`);
  }

  /** Choose what a button stands for. */
  press({ outcome, order }) {
    this.control("outcome").value = outcome;
    this.control("order").value = order;
    this.control("defect").value = "";
    this.choose();
  }

  /** Begin the list anew, as the controls have it. */
  choose() {
    const [outcome, order] = [this.control("outcome").value, this.control("order").value];
    const defect = this.data.defects[this.control("defect").value - 1];
    this.items = this.data.images
      .filter((item) => item.outcome.startsWith(outcome))
      .filter((item) => defect === undefined || item.defect === defect)
      .sort(ORDERS[order]);
    for (const button of this.section.querySelectorAll("[data-order]"))
      button.ariaPressed = String(defect === undefined
        && button.dataset.outcome === outcome && button.dataset.order === order);
    this.tellNumber();
    this.list.replaceChildren();
    this.list.parentElement.scrollTop = 0;
    this.extend();
  }

  /** Tell how many images there are of each outcome, and how many of them are shown. */
  tellOutcomes() {
    for (const told of this.section.querySelectorAll("[data-name]")) {
      const outcome = told.value || told.dataset.outcome;
      const all = this.data.outcomes[outcome] ?? 0;
      const shown = this.data.images.filter((item) => item.outcome === outcome).length;
      const number = shown === all ? all : `${shown} of ${all}`;
      const textContent = `${told.dataset.name} (${number})`;
      if (told.matches("button")) Object.assign(told, { textContent, disabled: !all });
      else replaceOption(told, Object.assign(told.cloneNode(), { textContent }));
    }
  }

  tellNumber() {
    const { images, total } = this.data;
    const more = total > images.length ? `, chosen of ${total.toLocaleString("en")}` : "";
    this.section.querySelector("[role=status]").textContent =
      `${this.items.length.toLocaleString("en")} of ${plural(images.length, "image")}${more}`;
  }

  /** Put more images into the page, until there are so many. */
  extend(count = this.list.children.length + CHUNK) {
    const next = this.items.slice(this.list.children.length, count);
    this.list.append(...next.map((item) => card(item, this.data)));
    this.ends.unobserve(this.end); // what stays in view is told anew
    if (this.list.children.length < this.items.length) this.ends.observe(this.end);
  }

  /** Lead back to an image, which may not be in the list yet. */
  focus(place) {
    this.extend(Math.max(this.list.children.length, place + 1));
    this.list.children[place].firstChild.focus();
  }
}

/** A dialog with one image of a gallery's list, from which keys and buttons go on. */
class Enlarged {
  constructor(dialog, gallery) {
    Object.assign(this, { dialog, gallery, place: 0 });
    dialog.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (target === dialog || button?.matches("[data-close]")) dialog.close();
      else if (button) this.show(this.place + Number(button.dataset.step));
    });
    dialog.addEventListener("keydown", (event) => {
      if (!(event.key in STEPS)) return;
      event.preventDefault();
      this.show(this.place + STEPS[event.key]);
    });
    dialog.addEventListener("close", () => gallery.focus(this.place));
  }

  /** Show the image at a place of the list; after the last comes the first. */
  show(place) {
    const { items, data } = this.gallery;
    this.place = (place + items.length) % items.length;
    const item = items[this.place];
    this.dialog.querySelector("h5").replaceChildren(element("bdi", {}, item.name));
    this.dialog.querySelector("dl").replaceChildren(...facts(item, this.place, items.length));
    this.dialog.querySelector(".gallery-large").replaceChildren(strip(item, data));
    if (!this.dialog.open) this.dialog.showModal();
  }
}

for (const section of document.querySelectorAll(".gallery:has(ol)"))
  onceSeen(section, () => new Gallery(section));
