// Opens a detector that export.py wrote and scores pictures with it; page.js shows how.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { PbfReader } from "./node_modules/pbf/index.js";

const LAYOUT = "2"; // of the file, as deployment/description.py has it
const [METADATA, KEY, VALUE] = [14, 1, 2]; // fields of a model and its entries. Source: onnx.proto
const PNG = "\x89PNG"; // its header's byte 24 is the bits of a channel. Source: PNG, section 11.2.1

ort.env.logLevel = "error";
ort.env.wasm.proxy = true; // in a worker: the page answers meanwhile

/** What went wrong, in words for the page. */
export class InputError extends Error {}

/** A detector at work; `about` is what its file says of itself. */
export class Detector {
  constructor(session, about) {
    Object.assign(this, { session, about });
  }

  /** Open a file's content, a Uint8Array. Throws an InputError for what export.py did not write. */
  static async open(content) {
    try {
      const about = description(content);
      return new Detector(await ort.InferenceSession.create(content), about);
    } catch (error) {
      throw new InputError(`damaged, or not written by export.py (${firstLine(error)})`);
    }
  }

  /** Return what the detector says of a picture, an ImageData; the map is Float32Array (H × W). */
  async predict({ data, width, height }) {
    const { fixed_size, image_size, resizes } = this.about;
    const [h, w] = fixed_size ?? (resizes ? [height, width] : image_size);
    if (height !== h || width !== w)
      throw new InputError(`this detector takes pictures of ${w} × ${h} alone`);
    const image = new ort.Tensor("uint8", withoutAlpha(data), [1, height, width, 3]);
    try {
      const { anomalous, score, p_value, anomaly_map } = await this.session.run({ image });
      const [[verdict], [value], [p]] = [anomalous.data, score.data, p_value.data];
      if (anomaly_map.size !== width * height) throw new Error("its map has another size");
      return { anomalous: Boolean(verdict), score: value, pValue: p, map: anomaly_map.data };
    } catch (error) {
      throw new InputError(`cannot be scored (${firstLine(error)})`);
    }
  }

  /** Give its memory back. */
  close() {
    return this.session.release();
  }
}

/** Read a picture file as ImageData: upright, its colours as they are stored. */
export async function decode(file) {
  const head = await file.slice(0, 25).arrayBuffer().then((bytes) => new Uint8Array(bytes));
  if (String.fromCharCode(...head.slice(0, 4)) === PNG && head[24] > 8)
    throw new InputError("deeper than 8 bits, which browsers cut off");
  const image = await pixelsOf(file).catch(() => {
    throw new InputError("no picture that this browser can read");
  });
  for (let alpha = 3; alpha < image.data.length; alpha += 4)
    if (image.data[alpha] < 255)
      throw new InputError("partly transparent: save it without, as browsers lose colours there");
  return image;
}

async function pixelsOf(file) {
  // else colours are converted from the file's profile to the screen's
  const asStored = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(file, asStored);
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

/** What a file says of itself, which ONNX Runtime Web does not tell: the entries `about.`. */
function description(content) {
  const texts = new PbfReader(content).readFields((field, texts, model) => {
    if (field !== METADATA) return;
    const entry = model.readMessage((field, entry, pbf) => (entry[field] = pbf.readString()), []);
    texts.set(entry[KEY], entry[VALUE]);
  }, new Map());
  if (texts.get("layout") !== LAYOUT) throw new Error(`it is not of layout ${LAYOUT}`);
  const about = { category: texts.get("about.category") };
  const thresholds = ["threshold", "map_threshold", "false_alarm_rate"];
  for (const name of ["image_size", "fixed_size", "resizes", ...thresholds])
    about[name] = JSON.parse(texts.get(`about.${name}`));
  const numbers = [about.threshold, about.map_threshold, about.false_alarm_rate];
  if (![...numbers, ...about.image_size].every(Number.isFinite))
    throw new Error("a threshold or a size is no number");
  return about;
}

/** RGB of RGBA. */
function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4)
    for (let channel = 0; channel < 3; channel++) rgb[to++] = rgba[from + channel];
  return rgb;
}

function firstLine(error) {
  return String(error?.message ?? error).split("\n")[0].slice(0, 200);
}
