/* Training: loss curves, drawn when they come into view; see training.html. */
{
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"]; // told apart without colours

  function drawLosses(element) {
    const { step, learning_rate, ...terms } = JSON.parse(element.querySelector("script").textContent);
    const chart = element.querySelector(".chart");
    const traces = Object.entries(terms).map(([name, values], index) => ({
      x: step,
      y: values,
      name: plain(name),
      mode: step.length > 1 ? "lines" : "markers",
      line: { width: name === "total" ? 2.5 : 1.2, dash: DASHES[index % DASHES.length] },
    }));
    const draw = () => {
      const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false };
      Plotly.react(chart, traces, {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: colour("--ink"), family: "system-ui, sans-serif" },
        margin: { l: 60, r: 10, t: 10, b: 45 },
        legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
        xaxis: { ...axis, title: { text: "step" } },
        yaxis: { ...axis, title: { text: "loss" }, type: "log", tickformat: "~g" },
      }, { displayModeBar: false, responsive: true });
    };
    draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }

  for (const element of document.querySelectorAll(".losses")) onceSeen(element, drawLosses);
}
