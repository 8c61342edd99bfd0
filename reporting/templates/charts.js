/* The charts of a run, see charts.html; reporting/charts.py tells what the data are. */

const PATTERNS = ["/", ".", "x", "-", "|", "+"];
const BINS = 60;

/** Return the ends of a histogram's bars [[from, to], ...], none on both sides of the threshold. */
function bars({ axis: [low, high], threshold }) {
  const size = (high - low) / BINS;
  const below = Math.ceil((threshold - low) / size);
  const edges = Array.from({ length: BINS + 2 }, (_, bin) => threshold + (bin - below) * size);
  return edges.slice(1).map((end, bin) => [edges[bin], end]);
}

/** Return how many of rising scores are in each bar; the outermost have what is beyond, too. */
function counts(scores, ends) {
  const higher = ends.slice(1).map(([from]) => above(scores, from));
  return ends.map((_, bin) => (bin ? higher[bin - 1] : scores.length) - (higher[bin] ?? 0));
}

/** Return how bars of a group look: the `index` of a defect, among the defects, tells it apart. */
function look(colours, kind, index) {
  const known = { good: colours.good, unlabelled: colours.accent, "held out": colours.muted };
  if (kind !== "defect") return { color: known[kind], line: { width: 0 } };
  const shape = PATTERNS[(index + Math.floor(index / SERIES)) % PATTERNS.length];
  const pattern = { fillmode: "overlay", fgopacity: 0.5, size: 6, shape };
  return { color: colours.series[index % SERIES], line: { width: 0 }, pattern };
}

/** Histograms on one axis: images of the test above, held-out good ones below; `line` is dragged. */
function paintScores(chart, data, groups, line) {
  const [colours, ends] = [palette(), bars(data)];
  const isHeldOut = ({ kind }) => kind === "held out";
  const both = groups.some(isHeldOut) && !groups.every(isHeldOut);
  const defects = groups.filter(({ kind }) => kind === "defect");
  const traces = groups.map((group) => ({
    type: "bar",
    name: label(group.name),
    x: ends.map(([from, to]) => (from + to) / 2),
    y: counts(group.scores, ends),
    customdata: ends.map((pair) => pair.map(short).join(" to ")),
    yaxis: both && isHeldOut(group) ? "y2" : "y",
    marker: look(colours, group.kind, defects.indexOf(group)),
    hovertemplate: "%{customdata}: %{y}",
  }));
  const fixed = { fixedrange: true }; // while the line is dragged
  const x = { ...fixed, range: [ends[0][0], ends.at(-1)[1]], title: { text: "score" },
    ...(both && { anchor: "y2" }) };
  const y = { ...fixed, title: { text: "images" }, ...(both && { domain: [0.36, 1] }) };
  const more = {
    barmode: "stack",
    bargap: 0,
    dragmode: false,
    shapes: [{ type: "line", xref: "x", yref: "paper", x0: line, x1: line, y0: 0, y1: 1,
      line: { color: colours.ink, width: 3 } }],
    ...(both && { yaxis2: { ...fixed, domain: [0, 0.3], title: { text: "held out" } } }),
  };
  draw(chart, traces, layout(colours, x, y, more), { shapePosition: true });
}

/** What is marked of a curve's false positive rates: up to each limit, and at the headline's. */
function marked(colours, limits, headline) {
  const high = { xref: "x", yref: "paper", y0: 0, y1: 1 };
  const shaded = limits.map((limit) => ({ ...high, type: "rect", layer: "below", x0: 0, x1: limit,
    line: { width: 0 }, fillcolor: colours.accent, opacity: 0.08 }));
  if (!headline) return shaded;
  const line = { color: colours.ink, dash: "dot" };
  return [...shaded, { ...high, type: "line", x0: headline, x1: headline, line }];
}

/** ROC and (s)PRO curves: of all defects, or of each. One defect alone is all defects. */
function paintCurves(chart, { curves, limits = [], headline }, [xTitle, yTitle], narrow, each) {
  const colours = palette();
  const apart = each || curves.length <= 2;
  const traces = curves.filter(({ name }) => (name !== null) === apart)
    .map(({ name, points }, index) => ({
      type: "scatter",
      mode: points.length < 100 ? "lines+markers" : "lines",
      name: label(name ?? "all defects"),
      x: points.map(([fpr]) => fpr),
      y: points.map(([, rate]) => rate),
      line: { color: colours.series[index % SERIES],
        dash: DASHES[Math.floor(index / SERIES) % DASHES.length] },
      marker: { size: 4 },
      hovertemplate: "%{x:.4~g}, %{y:.1%}",
    }));
  const x = { range: narrow ? [0, headline] : [-0.01, 1.01], title: { text: xTitle } };
  const y = { range: [0, 1.02], title: { text: yTitle } };
  const shapes = marked(colours, limits, headline);
  draw(chart, traces, layout(colours, x, y, { showlegend: true, shapes }));
}

/** False-alarm rates: promised against found. */
function paintCalibration(chart, found, narrow) {
  const colours = palette();
  const hovertemplate = "promised %{x:.1%}, found %{y:.1%}";
  const mute = { mode: "lines", hoverinfo: "skip" };
  const band = (y, more) => ({ ...mute, x: found.rates, y, line: { shape: "hv", width: 0 }, ...more });
  const traces = [
    band(found.low, { showlegend: false }),
    band(found.high, { name: "95 % by chance", fill: "tonexty", fillcolor: colours.line }),
    { ...mute, name: "as promised", x: [0, 1], y: [0, 1], line: { color: colours.muted, dash: "dash" } },
    { mode: "lines", name: "found", x: found.rates, y: found.found, hovertemplate,
      line: { shape: "hv", color: colours.accent } },
    { mode: "markers", name: "stored threshold", x: [found.promised],
      y: [found.above / found.good], hovertemplate,
      marker: { size: 11, symbol: "diamond", color: colours.series[0] } },
  ].filter(({ y, x }) => y.length && x[0] !== null);
  const [x, y] = [["false-alarm rate promised", 0.2], ["found", 0.4]].map(([text, end]) =>
    ({ title: { text }, range: narrow ? [0, end] : [-0.01, 1.01], tickformat: ".0%" }));
  draw(chart, traces, layout(colours, x, y, { showlegend: true }));
}

/** Draw a figure's chart, where it has one, by `paint`; anew when its box is ticked: `narrow`. */
function startCurves(figure, paint) {
  const chart = figure?.querySelector(".chart");
  if (!chart) return;
  const box = figure.querySelector("[type=checkbox]");
  box?.addEventListener("change", () => paint(chart, box.checked));
  drawOnceSeen(chart, () => paint(chart, box?.checked));
}

function startCharts(root) {
  const { roc, localization, calibration, ...data } =
    JSON.parse(root.querySelector("script").textContent);
  const choice = root.querySelector(".by-defect");
  const isEach = () => Boolean(choice?.value);
  const figure = (name) => root.querySelector(`.${name}`);
  const scores = data.axis && new Scores(figure("scores"), data, isEach);
  root.scores = scores; // for the gallery
  startCurves(figure("roc"), (chart) =>
    paintCurves(chart, { curves: roc }, ["false-alarm rate", "defects found"], false, isEach()));
  startCurves(figure("localization"), (chart, narrow) => paintCurves(chart, localization,
    ["false positive rate of pixels", localization.metric], narrow, isEach()));
  startCurves(figure("calibration"), (chart, narrow) => paintCalibration(chart, calibration, narrow));
  choice?.addEventListener("change", () => {
    scores?.tell();
    repaint(root);
  });
}

for (const root of document.querySelectorAll(".charts")) startCharts(root);
