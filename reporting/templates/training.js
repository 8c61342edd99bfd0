/* Training: loss curves; see training.html. */

function paintLosses(chart, { step, learning_rate, ...terms }) {
  const colours = palette();
  const traces = Object.entries(terms).map(([name, values], index) => ({
    x: step,
    y: values,
    name: plain(name),
    mode: step.length > 1 ? "lines" : "markers",
    line: { width: name === "total" ? 2.5 : 1.2, color: colours.series[index % SERIES],
      dash: DASHES[index % DASHES.length] },
  }));
  const x = { title: { text: "step" } };
  const y = { title: { text: "loss" }, type: "log", tickformat: "~g" };
  draw(chart, traces, layout(colours, x, y));
}

for (const losses of document.querySelectorAll(".losses")) {
  const [script, chart] = losses.children;
  drawOnceSeen(chart, () => paintLosses(chart, JSON.parse(script.textContent)));
}
