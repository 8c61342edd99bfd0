/* What a threshold makes of a run's scores; reporting/charts.py tells what the data are. */

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const short = (value) => String(Number(value.toPrecision(4)));

/** Return how many of rising scores are above a threshold. */
function above(scores, threshold) {
  let [low, high] = [0, scores.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (scores[middle] > threshold) high = middle;
    else low = middle + 1;
  }
  return scores.length - low;
}

/** Return the groups to show: each defect, or all as one. */
function groupsShown(groups, each) {
  const defects = groups.filter(({ kind }) => kind === "defect");
  if (each || defects.length < 2) return groups;
  const scores = defects.flatMap((group) => group.scores).sort((a, b) => a - b);
  const others = groups.filter(({ kind }) => kind !== "defect");
  const at = groups.indexOf(defects[0]);
  return others.toSpliced(at, 0, { kind: "defect", name: "all defects", scores });
}

/** Return the rows of the matrix: name, images that are called good, and anomalous. */
function judged(groups, threshold) {
  return groups.filter(({ kind }) => kind !== "held out").map(({ name, scores }) => {
    const high = above(scores, threshold);
    return [name, scores.length - high, high];
  });
}

/** Return how many images of a kind of groups a threshold calls good, and anomalous. */
function called(groups, wanted, threshold) {
  const scores = groups.filter(({ kind }) => kind === wanted).map((group) => group.scores);
  const sum = (count) => scores.reduce((total, some) => total + count(some), 0);
  const high = sum((some) => above(some, threshold));
  return [sum((some) => some.length) - high, high];
}

function share(part, whole, thing, rest = "") {
  const things = plural(whole, thing) + rest;
  return whole ? `${percent(part / whole)} (${part} of ${things})` : `– (${things})`;
}

/** Return precision, recall and false-alarm rates, as far as they are known: names and sentences. */
function rates(groups, threshold) {
  const of = (kind) => called(groups, kind, threshold);
  const [[passed, alarms], [missed, found], [below, kept]] = ["good", "defect", "held out"].map(of);
  const [good, defects, heldOut] = [passed + alarms, missed + found, below + kept];
  const said = [];
  if (good && defects)
    said.push(["Precision", share(found, found + alarms, "image", " called anomalous")]);
  if (defects) said.push(["Recall", share(found, defects, "defective image")]);
  if (good) said.push(["False-alarm rate", share(alarms, good, "good image")]);
  if (heldOut)
    said.push(["Promised false-alarm rate, at most, on average",
      `${percent((1 + kept) / (heldOut + 1))} ((1 + ${kept}) / (1 + ${heldOut}): ` +
      `${kept} of ${plural(heldOut, "held-out good image")} are above)`]);
  return said;
}

/** The figure of a run's scores: its threshold can be dragged, slid and typed; `threshold` events
    tell of it. */
class Scores {
  constructor(figure, data, isEach) {
    Object.assign(this, { figure, data, isEach, threshold: data.threshold });
    this.chart = figure.querySelector(".chart");
    this.listen();
    this.tell();
    this.tellBeyond();
    drawOnceSeen(this.chart, () => this.paint());
  }

  listen() {
    [this.slider, this.exact] = this.figure.querySelectorAll("input");
    this.slider.addEventListener("input", () => this.set(this.onAxis(this.slider.valueAsNumber)));
    this.exact.addEventListener("input", () => {
      if (Number.isFinite(this.exact.valueAsNumber)) this.set(this.exact.valueAsNumber);
    });
    this.exact.addEventListener("blur", () => this.tell());
    const stored = this.figure.querySelector("button");
    stored.addEventListener("click", () => this.set(this.data.threshold));
    // plotly tells of a shape when it is let go; until then its place is in _fullLayout alone
    const follow = () => this.chart.on && this.tell(this.dragged(this.chart._fullLayout.shapes[0]));
    this.chart.addEventListener("pointerdown", () => {
      document.addEventListener("pointermove", follow);
      document.addEventListener("pointerup",
        () => document.removeEventListener("pointermove", follow), { once: true, capture: true });
    }, { capture: true });
  }

  get groups() {
    return groupsShown(this.data.groups, this.isEach());
  }

  onAxis(value) {
    const [low, high] = this.data.axis;
    return Number(Math.min(Math.max(value, low), high).toPrecision(9));
  }

  /** Say what a threshold makes of the scores. */
  tell(threshold = this.threshold) {
    const said = rates(this.groups, threshold);
    this.figure.querySelector("tbody").replaceChildren(
      ...judged(this.groups, threshold).map(([name, ...counts]) => element("tr", {},
        element("th", { scope: "row" }, element("bdi", {}, name)),
        ...counts.map((count) => element("td", {}, count)))));
    this.figure.querySelector("dl").replaceChildren(
      ...said.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
    const sentences = said.map(([name, text]) => `${name} ${text}`).join(". ");
    const summary = `Scores, threshold ${short(threshold)}. ${sentences}`;
    this.chart.setAttribute("aria-label", summary);
    this.slider.setAttribute("aria-valuetext", summary);
    this.slider.value = threshold;
    if (document.activeElement !== this.exact) this.exact.value = threshold; // else it is being typed
  }

  tellBeyond() {
    const [low, high] = this.data.axis;
    const scores = this.data.groups.flatMap((group) => group.scores);
    const beyond = scores.filter((score) => score < low || score > high).length;
    if (beyond) this.figure.querySelector(".beyond").textContent =
      `Beyond what is shown, and counted in the outermost bars: ${plural(beyond, "score")}.`;
  }

  set(threshold) {
    this.threshold = threshold;
    this.tell();
    this.figure.dispatchEvent(new CustomEvent("threshold", { bubbles: true }));
    if (!this.chart.on) return; // not drawn yet
    const place = this.onAxis(threshold);
    Plotly.relayout(this.chart, { "shapes[0].x0": place, "shapes[0].x1": place,
      "shapes[0].y0": 0, "shapes[0].y1": 1 });
  }

  /** Return the threshold that the line is dragged to, by its middle or an end. */
  dragged({ x0, x1 }) {
    const [low, high] = this.data.axis;
    const pixel = (high - low) / 5000; // or less: plotly rounds it away
    const to = [x0, x1].find((x) => Math.abs(x - this.onAxis(this.threshold)) > pixel);
    return to === undefined ? this.threshold : this.onAxis(to);
  }

  paint() {
    const first = !this.chart.on;
    paintScores(this.chart, this.data, this.groups, this.onAxis(this.threshold));
    if (first) this.chart.on("plotly_relayout", () => {
      const [line] = this.chart.layout.shapes;
      const to = this.dragged(line);
      if (to !== this.threshold || line.y0 !== 0 || line.y1 !== 1) this.set(to); // or it was lifted
    });
  }
}
