"use strict";
{
  const CHUNK = 24; // images that are put into the page at once
  const ORDERS = {
    worst: () => 0, // as they come
    high: (a, b) => b.score - a.score,
    low: (a, b) => a.score - b.score,
    random: (a, b) => a.random - b.random,
    name: (a, b) => (a.name < b.name ? -1 : 1),
  };
  const STEPS = { ArrowLeft: -1, ArrowRight: 1 };

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function drawing(tag, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  const digits = (value) => (value === undefined ? "" : String(Number(value.toPrecision(3))));

  // A picture, in base64, as wide and high as the image's `size` has it, with an outline over it.
  function panel(label, [width, height], picture = "", outline = "", kind = "") {
    const shown = make("span", { className: "gallery-picture" });
    shown.style.aspectRatio = `${width} / ${height}`;
    if (picture) shown.append(make("img", { alt: "", src: `data:image/webp;base64,${picture}` }));
    if (outline) {
      const svg = drawing("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
      for (const of of ["halo", kind]) svg.append(drawing("path", { d: outline, class: of }));
      shown.append(svg);
    }
    return make("span", { className: "gallery-panel" }, shown, make("span", {}, label));
  }

  // What is marked in an image; an empty place where nothing is, so that maps stand below maps.
  function truthPanel({ defect, picture: { size, image, truth } }) {
    if (truth) return panel("truth", size, image, truth, "truth");
    return panel(defect === "good" ? "no defect" : "no mask", size);
  }

  // The pictures of an image side by side: itself, its truth, its map, each expert's map.
  function strip(item, data) {
    const shown = make("span", { className: "gallery-strip" });
    if (!item.picture) return make("span", {}, "no picture");
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
    const mark = make("span", { className: "gallery-outcome" }, item.outcome);
    mark.dataset.outcome = item.outcome;
    const words = make("span", { className: "gallery-words" });
    words.append(mark, `, score ${digits(item.score)}: `, make("bdi", {}, item.name));
    const button = make("button", { type: "button" }, words, strip(item, data));
    button.ariaLabel = `${item.outcome}, score ${digits(item.score)}, ${item.name}`;
    return make("li", {}, button);
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
      make("div", {}, make("dt", {}, term), make("dd", {}, make("bdi", {}, text))));
  }

  // Show what a gallery's element holds; called once, when it comes into view.
  function open(gallery) {
    const data = JSON.parse(gallery.querySelector("script").textContent);
    const [list, end, dialog] = ["ol", ".gallery-end", "dialog"].map((q) => gallery.querySelector(q));
    const control = (name) => gallery.querySelector(`[name=${name}]`);
    let items = [];
    let enlarged = 0;

    function choose() {
      const [outcome, defect] = [control("outcome").value, data.defects[control("defect").value - 1]];
      items = data.images
        .filter((item) => item.outcome.startsWith(outcome))
        .filter((item) => defect === undefined || item.defect === defect)
        .sort(ORDERS[control("order").value]);
      for (const button of gallery.querySelectorAll("[data-order]")) {
        const pressed = button.dataset.outcome === outcome && defect === undefined
          && button.dataset.order === control("order").value;
        button.ariaPressed = String(pressed);
      }
      const count = items.length.toLocaleString("en");
      const shown = `${count} of ${data.images.length.toLocaleString("en")} images`;
      const more = data.total > data.images.length ? `, chosen of ${data.total.toLocaleString("en")}` : "";
      gallery.querySelector("[role=status]").textContent = shown + more;
      list.replaceChildren();
      list.parentElement.scrollTop = 0;
      extend();
    }

    function extend(count = list.children.length + CHUNK) {
      const next = items.slice(list.children.length, count);
      list.append(...next.map((item) => card(item, data)));
      ends.unobserve(end); // what stays in view is told anew
      if (list.children.length < items.length) ends.observe(end);
    }

    const ends = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && extend());

    function enlarge(index) {
      enlarged = (index + items.length) % items.length;
      const item = items[enlarged];
      dialog.querySelector("h5").replaceChildren(make("bdi", {}, item.name));
      dialog.querySelector("dl").replaceChildren(...facts(item, enlarged, items.length));
      dialog.querySelector(".gallery-large").replaceChildren(strip(item, data));
      if (!dialog.open) dialog.showModal();
    }

    for (const name of ["outcome", "defect", "order"]) control(name).addEventListener("change", choose);
    gallery.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (target === dialog || button?.matches("[data-close]")) dialog.close();
      else if (button?.dataset.step) enlarge(enlarged + Number(button.dataset.step));
      else if (button?.dataset.order) {
        control("outcome").value = button.dataset.outcome;
        control("order").value = button.dataset.order;
        control("defect").value = "";
        choose();
      } else if (button) enlarge([...list.children].indexOf(button.parentElement));
    });
    dialog.addEventListener("keydown", (event) => {
      if (!(event.key in STEPS)) return;
      event.preventDefault();
      enlarge(enlarged + STEPS[event.key]);
    });
    dialog.addEventListener("close", () => { // where it was left, which may not be in the list yet
      extend(Math.max(list.children.length, enlarged + 1));
      list.children[enlarged].firstChild.focus();
    });
    choose();
  }

  const views = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting) continue;
      views.unobserve(target);
      open(target);
    }
  }, { rootMargin: "200px" });
  for (const gallery of document.querySelectorAll(".gallery:has(ol)")) views.observe(gallery);
}
