/* The charts of a run, see charts.html; reporting/charts.py tells what the data are. */
(() => {
  const PATTERNS = ["/", ".", "x", "-", "|", "+"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const SERIES = 6; // colours; with more defects, patterns and dashes change
  const BINS = 60;
  const LONGEST = 32; // letters of a name in a chart; tables have it whole
  const DRAG = matchMedia("(pointer: coarse)").matches ? false : "zoom"; // a swipe is to scroll

  /** Return a name for plotly, isolated: what is written from right to left turns nothing else. */
  const label = (name) => {
    const letters = Array.from(name.replace(/[\u202a-\u202e\u2066-\u2069]/g, ""));
    const short = letters.length > LONGEST ? [...letters.slice(0, LONGEST - 1), "…"] : letters;
    return `\u2068${plain(short.join(""))}\u2069`;
  };

  const element = (tag, ...children) => {
    const made = document.createElement(tag);
    made.append(...children); // strings become text
    return made;
  };

  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  const short = (value) => String(Number(value.toPrecision(4)));
  const share = (part, whole, of) =>
    whole ? `${percent(part / whole)} (${part} of ${whole} ${of})` : `– (0 ${of})`;

  /** How many of rising scores are above a threshold. */
  const above = (scores, threshold) => {
    let [low, high] = [0, scores.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (scores[middle] > threshold) high = middle;
      else low = middle + 1;
    }
    return scores.length - low;
  };

  const palette = () => {
    const names = ["ink", "muted", "line", "raised", "accent", "good"];
    const series = Array.from({ length: SERIES }, (_, index) => colour(`--series-${index + 1}`));
    return { ...Object.fromEntries(names.map((name) => [name, colour(`--${name}`)])), series };
  };

  const layout = (colours, x, y, more) => {
    const axis = { gridcolor: colours.line, zerolinecolor: colours.line, automargin: true };
    return {
      paper_bgcolor: "transparent",
      plot_bgcolor: "transparent",
      font: { color: colours.ink, family: "system-ui, sans-serif", size: 13 },
      hoverlabel: { bgcolor: colours.raised, font: { color: colours.ink } },
      margin: { l: 48, r: 20, t: 12, b: 44 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", maxheight: 0.35,
        traceorder: "normal" },
      dragmode: DRAG,
      ...more,
      xaxis: { ...axis, ...x },
      yaxis: { ...axis, ...y },
      ...(more.yaxis2 && { yaxis2: { ...axis, ...more.yaxis2 } }),
    };
  };

  const draw = (node, traces, laid, edits = {}) =>
    Plotly.react(node, traces, laid, { displayModeBar: false, responsive: true, edits });

  /** Draw a chart when it is seen, and anew when `repaint` is called. */
  const whenSeen = (node, paint) => {
    node.paint = paint;
    onceSeen(node, paint);
  };
  const repaint = (within) => {
    for (const node of within.querySelectorAll(".charts .js-plotly-plot")) node.paint();
  };

  /** The groups to show: every defect, or all as one. */
  const shown = (groups, each) => {
    const defects = groups.filter(({ kind }) => kind === "defect");
    if (each || defects.length < 2) return groups;
    const scores = defects.flatMap((group) => group.scores).sort((a, b) => a - b);
    const others = groups.filter(({ kind }) => kind !== "defect");
    const at = groups.indexOf(defects[0]);
    return others.toSpliced(at, 0, { kind: "defect", name: "all defects", scores });
  };

  /** Histograms on one axis: images of the test above, held-out good ones below. */
  const paintScores = (node, { axis: [low, high], threshold }, groups, line) => {
    const colours = palette();
    const size = (high - low) / BINS;
    const below = Math.ceil((threshold - low) / size); // no bar is on both sides of the threshold
    const edges = Array.from({ length: BINS + 2 }, (_, bin) => threshold + (bin - below) * size);
    const bars = edges.slice(1).map((end, bin) => [edges[bin], end]);
    const between = bars.map((ends) => ends.map(short).join(" to "));
    const test = groups.filter(({ kind }) => kind !== "held out"); // held-out ones are last
    const colourOf = { good: colours.good, unlabelled: colours.accent, "held out": colours.muted };
    let series = 0;
    const traces = groups.map(({ kind, name, scores }) => {
      const index = kind === "defect" ? series++ : 0;
      const marker = { color: colourOf[kind] ?? colours.series[index % SERIES], line: { width: 0 } };
      if (kind === "defect")
        marker.pattern = { fillmode: "overlay", fgopacity: 0.5, size: 6,
          shape: PATTERNS[(index + Math.floor(index / SERIES)) % PATTERNS.length] };
      const higher = [scores.length, ...edges.slice(1, -1).map((edge) => above(scores, edge)), 0];
      return {
        type: "bar",
        name: label(name),
        x: bars.map(([start]) => start + size / 2),
        y: bars.map((_, bin) => higher[bin] - higher[bin + 1]),
        customdata: between,
        yaxis: kind === "held out" && test.length ? "y2" : "y",
        marker,
        hovertemplate: "%{customdata}: %{y}",
      };
    });
    const both = test.length && test.length < groups.length;
    const fixed = { fixedrange: true }; // while the line is dragged
    const more = {
      barmode: "stack",
      bargap: 0,
      dragmode: false,
      shapes: [{ type: "line", xref: "x", yref: "paper", x0: line, x1: line, y0: 0, y1: 1,
        line: { color: colours.ink, width: 3 } }],
      ...(both && { yaxis2: { ...fixed, domain: [0, 0.3], title: { text: "held out" } } }),
    };
    const y = { ...fixed, title: { text: "images" }, ...(both && { domain: [0.36, 1] }) };
    const x = { ...fixed, range: [edges[0], edges.at(-1)], title: { text: "score" },
      ...(both && { anchor: "y2" }) };
    draw(node, traces, layout(colours, x, y, more), { shapePosition: true });
  };

  /** What a threshold makes of the groups: rows of the matrix, and pairs of a name and a sentence. */
  const judged = (groups, threshold) => {
    const of = (wanted) => {
      const scores = groups.filter(({ kind }) => kind === wanted).map((group) => group.scores);
      const sum = (count) => scores.reduce((total, some) => total + count(some), 0);
      return [sum((some) => above(some, threshold)), sum((some) => some.length)];
    };
    const [[alarms, good], [found, defects]] = [of("good"), of("defect")];
    const [kept, heldOut] = of("held out");
    const facts = [];
    if (good && defects)
      facts.push(["Precision", share(found, found + alarms, "images called anomalous")]);
    if (defects) facts.push(["Recall", share(found, defects, "defective images")]);
    if (good) facts.push(["False-alarm rate", share(alarms, good, "good images")]);
    if (heldOut)
      facts.push(["Promised false-alarm rate, at most, on average",
        `${percent((1 + kept) / (heldOut + 1))} ((1 + ${kept}) / (1 + ${heldOut}): ` +
        `${kept} of ${heldOut} held-out good images are above)`]);
    const rows = groups.filter(({ kind }) => kind !== "held out").map(({ name, scores }) => {
      const high = above(scores, threshold);
      return [name, scores.length - high, high];
    });
    const said = facts.map(([name, sentence]) => `${name} ${sentence}`);
    return { rows, facts, summary: `Scores, threshold ${short(threshold)}. ${said.join(". ")}` };
  };

  const startScores = (figure, data, isEach) => {
    const node = figure.querySelector(".chart");
    if (!node) return () => {};
    const [slider, exact] = figure.querySelectorAll("input");
    const [low, high] = data.axis;
    const onAxis = (value) => Number(Math.min(Math.max(value, low), high).toPrecision(9));
    let threshold = data.threshold;

    const tell = (at = threshold) => {
      const { rows, facts, summary } = judged(shown(data.groups, isEach()), at);
      figure.querySelector("tbody").replaceChildren(...rows.map(([name, ...counts]) => {
        const head = element("th", element("bdi", name));
        head.scope = "row";
        return element("tr", head, ...counts.map((count) => element("td", count)));
      }));
      figure.querySelector("dl").replaceChildren(
        ...facts.flatMap(([name, sentence]) => [element("dt", name), element("dd", sentence)]));
      node.setAttribute("aria-label", summary);
      slider.setAttribute("aria-valuetext", summary);
      slider.value = at;
      if (document.activeElement !== exact) exact.value = at; // else it is being typed
    };
    const follow = (value) => {
      threshold = value;
      tell();
      if (!node.on) return; // not drawn yet
      const place = onAxis(threshold);
      Plotly.relayout(node, { "shapes[0].x0": place, "shapes[0].x1": place,
        "shapes[0].y0": 0, "shapes[0].y1": 1 });
    };
    const pixel = (high - low) / 5000; // or less: plotly rounds it away
    /** Return the threshold that the line is dragged to, by its middle or an end. */
    const dragged = ({ x0, x1 }) => {
      const to = [x0, x1].find((x) => Math.abs(x - onAxis(threshold)) > pixel);
      return to === undefined ? threshold : onAxis(to);
    };
    const paint = () => {
      const first = !node.on;
      paintScores(node, data, shown(data.groups, isEach()), onAxis(threshold));
      if (first) node.on("plotly_relayout", () => {
        const [line] = node.layout.shapes;
        const to = dragged(line);
        if (to !== threshold || line.y0 !== 0 || line.y1 !== 1) follow(to); // or it was lifted
      });
    };
    /** Plotly tells of a shape when it is let go; until then its place is in _fullLayout alone. */
    const live = () => node.on && tell(dragged(node._fullLayout.shapes[0]));
    node.addEventListener("pointerdown", () => {
      document.addEventListener("pointermove", live);
      document.addEventListener("pointerup",
        () => document.removeEventListener("pointermove", live), { once: true, capture: true });
    }, { capture: true });
    slider.addEventListener("input", () => follow(onAxis(slider.valueAsNumber)));
    exact.addEventListener("input", () => {
      if (Number.isFinite(exact.valueAsNumber)) follow(exact.valueAsNumber);
    });
    exact.addEventListener("blur", () => tell());
    figure.querySelector("button").addEventListener("click", () => follow(data.threshold));

    const beyond = data.groups.flatMap(({ scores }) => scores)
      .filter((score) => score < low || score > high).length;
    if (beyond) figure.querySelector(".beyond").textContent =
      `${beyond} scores are beyond what is shown, and counted in the outermost bars.`;
    tell();
    whenSeen(node, paint);
    return tell;
  };

  /** ROC and (s)PRO curves: of all defects, or of each. One defect alone is all defects. */
  const paintCurves = (node, narrow, { curves, limits = [], headline }, [xTitle, yTitle], each) => {
    const colours = palette();
    const apart = each || curves.length <= 2;
    const traces = curves.filter(({ name }) => (name !== null) === apart)
      .map(({ name, points }, index) => ({
        type: "scatter",
        mode: points.length < 100 ? "lines+markers" : "lines",
        name: label(name ?? "all defects"),
        x: points.map(([fpr]) => fpr),
        y: points.map(([, rate]) => rate),
        line: { color: colours.series[index % SERIES], dash: DASHES[Math.floor(index / SERIES) % 6] },
        marker: { size: 4 },
        hovertemplate: "%{x:.4~g}, %{y:.1%}",
      }));
    const high = { xref: "x", yref: "paper", y0: 0, y1: 1 };
    const shapes = limits.map((limit) => ({ ...high, type: "rect", layer: "below", x0: 0, x1: limit,
      line: { width: 0 }, fillcolor: colours.accent, opacity: 0.08 }));
    if (headline) shapes.push({ ...high, type: "line", x0: headline, x1: headline,
      line: { color: colours.ink, dash: "dot" } });
    const x = { range: narrow ? [0, headline] : [-0.01, 1.01], title: { text: xTitle } };
    const y = { range: [0, 1.02], title: { text: yTitle } };
    draw(node, traces, layout(colours, x, y, { showlegend: true, shapes }));
  };

  const paintCalibration = (node, narrow, found) => {
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
    draw(node, traces, layout(colours, x, y, { showlegend: true }));
  };

  /** Draws a figure's chart when it is seen, anew when its box is ticked: `narrow`. */
  const startCurves = (figure, paintOn) => {
    const node = figure?.querySelector(".chart");
    if (!node) return;
    const narrow = figure.querySelector("[type=checkbox]");
    const paint = () => paintOn(node, narrow?.checked);
    narrow?.addEventListener("change", paint);
    whenSeen(node, paint);
  };

  const start = (root) => {
    const { roc, localization, calibration, ...data } =
      JSON.parse(root.querySelector("script").textContent);
    const choice = root.querySelector(".by-defect");
    const isEach = () => Boolean(choice?.value);
    const tell = startScores(root.querySelector(".scores"), data, isEach);
    startCurves(root.querySelector(".roc"), (node) =>
      paintCurves(node, false, { curves: roc }, ["false-alarm rate", "defects found"], isEach()));
    startCurves(root.querySelector(".localization"), (node, narrow) => paintCurves(
      node, narrow, localization, ["false positive rate of pixels", localization.metric], isEach()));
    startCurves(root.querySelector(".calibration"), (node, narrow) =>
      paintCalibration(node, narrow, calibration));
    choice?.addEventListener("change", () => {
      tell();
      repaint(root);
    });
  };

  for (const root of document.querySelectorAll(".charts")) start(root);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => repaint(document));
})();
