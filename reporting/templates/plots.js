/* What all charts share: plotly, which draws them once they are seen; the page's colours; a layout. */

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]; // not colours alone
const SERIES = 6; // colours of --series-1 and so on; with more series, patterns and dashes change
const LONGEST = 32; // letters of a name in a chart; tables have it whole
const DRAG = matchMedia("(pointer: coarse)").matches ? false : "zoom"; // a swipe is to scroll

/** Run plotly, which takes a second that a page without a chart in view need not spend. */
function startPlotly() {
  if (window.Plotly) return;
  const script = element("script", {}, document.getElementById("plotly").textContent);
  document.head.append(script); // the page's policy knows it by its hash
}

/** Draw a chart by `paint` when it first comes into view, and anew when `repaint` is called. */
function drawOnceSeen(chart, paint) {
  chart.paint = paint;
  onceSeen(chart, () => {
    startPlotly();
    paint();
  });
}

/** Draw the charts in an element anew, those that have been in view. */
function repaint(within) {
  for (const chart of within.querySelectorAll(".js-plotly-plot")) chart.paint();
}

/** Return a colour of the page, such as "--ink", in the scheme that is on. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Return the colours of the page by name; those of series are a list. */
function palette() {
  const names = ["ink", "muted", "line", "raised", "accent", "good"];
  const series = Array.from({ length: SERIES }, (_, index) => colour(`--series-${index + 1}`));
  return { ...Object.fromEntries(names.map((name) => [name, colour(`--${name}`)])), series };
}

/** Return text for plotly, whose labels would read what looks like HTML. */
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Return a name for plotly, isolated: what is written from right to left turns nothing else. */
function label(name) {
  const letters = Array.from(name.replace(/[\u202a-\u202e\u2066-\u2069]/g, ""));
  const cut = letters.length > LONGEST ? [...letters.slice(0, LONGEST - 1), "…"] : letters;
  return `\u2068${plain(cut.join(""))}\u2069`;
}

/** Return plotly's layout in the page's colours, with these axes and `more`. */
function layout(colours, x, y, more = {}) {
  const axis = { gridcolor: colours.line, zerolinecolor: colours.line, automargin: true };
  return {
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { color: colours.ink, family: "system-ui, sans-serif", size: 13 },
    hoverlabel: { bgcolor: colours.raised, font: { color: colours.ink } },
    margin: { l: 48, r: 20, t: 12, b: 44 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", maxheight: 0.35, traceorder: "normal" },
    dragmode: DRAG,
    ...more,
    xaxis: { ...axis, ...x },
    yaxis: { ...axis, ...y },
    ...(more.yaxis2 && { yaxis2: { ...axis, ...more.yaxis2 } }),
  };
}

/** Draw traces, or change a chart to them; `edits` are what a reader may drag. */
function draw(chart, traces, laid, edits = {}) {
  Plotly.react(chart, traces, laid, { displayModeBar: false, responsive: true, edits });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => repaint(document));
