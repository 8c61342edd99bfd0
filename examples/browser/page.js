// The page: takes files, shows verdicts. What a file is called, or says, is shown as text alone.

import { decode, Detector, InputError } from "./detector.js";

// Dark is usual, yellow is strange: inferno, as in the project's other pictures.
const INFERNO = "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d fcffa4".split(" ");
const STRONGEST = 0.6; // part of the heat where it is full, so that the picture shows through

const NAMES = ["chooser", "pictures", "status", "about", "heat", "legend", "results", "result"];
const [chooser, pictures, status, about, heat, legend, results, result] = NAMES.map((id) =>
  document.getElementById(id),
);
const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const levels = colours();

let detector = null;
let work = Promise.resolve(); // one thing after the other

/** Do it when all before is done; what goes wrong is one line on the page. */
function later(what) {
  work = work.then(what).catch((error) => {
    if (!(error instanceof InputError)) console.error(error);
    say(error.message, true);
  });
}

function say(text, failed = false) {
  status.textContent = text;
  status.classList.toggle("failed", failed);
}

/** Open a detector; `read` gives its content, a File or a Response. */
async function open(name, read) {
  say(`Opening ${name} …`);
  await detector?.close();
  detector = null;
  pictures.disabled = heat.hidden = true;
  about.textContent = "";
  results.replaceChildren();
  const content = await (await read()).arrayBuffer();
  detector = await Detector.open(new Uint8Array(content)).catch((error) => {
    throw new InputError(`${name}: ${error.message}`);
  });
  const { category, threshold, false_alarm_rate: rate } = detector.about;
  about.textContent =
    `${category || name}: anomalous is what scores above ${short.format(threshold)}, ` +
    `as at most ${percent.format(rate)} of good pictures do.`;
  pictures.disabled = heat.hidden = false;
  say("Ready for pictures.");
}

async function download(url) {
  const response = await fetch(url).catch(() => null);
  if (!response?.ok) throw new InputError(`${url}: cannot be loaded from this page's own host`);
  return response;
}

/** Score pictures; they come above those of before. */
async function score(files) {
  if (!detector) throw new InputError("Choose a detector first.");
  const begun = performance.now();
  const counts = { anomalous: 0, good: 0, failed: 0 };
  const former = results.firstChild;
  for (const [index, file] of files.entries()) {
    say(`Scoring ${index + 1} of ${files.length} …`);
    const card = result.content.cloneNode(true).firstElementChild;
    card.querySelector(".name").textContent = file.name;
    try {
      counts[await fill(card, file)] += 1;
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      counts.failed += 1;
      card.classList.add("failed");
      card.replaceChildren(`${file.name}: ${error.message}`);
    }
    results.insertBefore(card, former);
  }
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  const failed = counts.failed ? `, ${counts.failed} not scored` : "";
  say(`${counts.anomalous} anomalous, ${counts.good} good${failed}, in ${seconds} s.`);
}

/** Show what the detector says of a file; return the verdict. */
async function fill(card, file) {
  const image = await decode(file);
  const found = await detector.predict(image);
  const verdict = found.anomalous ? "anomalous" : "good";
  card.classList.add(verdict);
  card.querySelector(".verdict").textContent = verdict;
  const [score, p] = card.querySelectorAll("data");
  [score.value, score.textContent] = [found.score, short.format(found.score)];
  [p.value, p.textContent] = [found.pValue, found.pValue.toFixed(3)];
  const [picture, overlay] = card.querySelectorAll("canvas");
  for (const canvas of [picture, overlay])
    [canvas.width, canvas.height] = [image.width, image.height];
  picture.getContext("2d").putImageData(image, 0, 0);
  overlay.getContext("2d").putImageData(heated(found.map, image), 0, 0);
  picture.setAttribute("aria-label", `${file.name}, ${verdict}`);
  return verdict;
}

/** The heat of a map, ImageData: none at 0, full at twice the map's threshold. */
function heated(map, { width, height }) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const full = Math.max(2 * detector.about.map_threshold, 1e-6);
  map.forEach((value, place) => {
    pixels[place] = levels[Math.round(255 * Math.min(Math.max(value / full, 0), 1))];
  });
  return image;
}

/** The colours of the heat, 256 pixels of RGBA; draws the legend with them. */
function colours() {
  const context = legend.getContext("2d", { willReadFrequently: true });
  const gradient = context.createLinearGradient(0, 0, 256, 0);
  INFERNO.forEach((colour, i) => gradient.addColorStop(i / (INFERNO.length - 1), `#${colour}`));
  context.fillStyle = gradient;
  context.fillRect(0, 0, 256, 1);
  const { data } = context.getImageData(0, 0, 256, 1);
  for (let level = 0; level < 256; level++) data[4 * level + 3] = STRONGEST * level;
  return new Uint32Array(data.buffer);
}

/** Take files of both kinds, a detector first. */
function take(files) {
  const isDetector = (file) => file.name.endsWith(".onnx");
  const model = files.find(isDetector);
  const others = files.filter((file) => !isDetector(file));
  if (model) later(() => open(model.name, () => model));
  if (others.length) later(() => score(others));
}

for (const input of [chooser, pictures]) {
  input.addEventListener("click", () => (input.value = "")); // so that the same may be chosen again
  input.addEventListener("change", () => take([...input.files]));
}
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  take([...event.dataTransfer.files]);
});

const url = new URLSearchParams(location.search).get("detector");
if (url) later(() => open(url, () => download(url)));
