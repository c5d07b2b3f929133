// The explorer: one example, its images and strip, and a slider along the rows of its walk.

const ROLES = ["clean", "ridge", "flip", "valley"];
const BARS = 10;

/** The kept picture of an example at a row, or the nearest before or after it. */
function nearestPicture(run, id, step) {
  const own = (run.pictures?.items ?? []).filter((item) => item.example === id);
  return own.reduce((best, item) => (
    !best || Math.abs(item.step - step) < Math.abs(best.step - step) ? item : best), null);
}

function picture(uri, alt, title, caption) {
  return element("figure", {}, element("img", { src: uri, alt }),
    element("figcaption", {}, element("strong", {}, title), element("br"), caption));
}

/** clean → ridge → flip → valley, then the perturbation amplified. */
function stripOf(run, id) {
  const own = (run.pictures?.items ?? []).filter((item) => item.example === id);
  const figures = ROLES.flatMap((role) => {
    const item = own.find((one) => one.roles.includes(role));
    return item ? [picture(item.uri, `Example ${id}, ${role}`, role, `step ${item.step}`)] : [];
  });
  const moved = (run.pictures?.perturbations ?? []).filter((item) => item.example === id);
  return figures.concat(moved.map((item) => picture(
    item.uri, `Example ${id}, its perturbation amplified ${item.factor} times`,
    "perturbation", `× ${Math.round(item.factor * 10) / 10}, step ${item.step}`)));
}

/** Probabilities of the classes at a row, from the kept logits at the shown temperature; null without them. */
async function probabilitiesAt(shown, example, row) {
  const positions = shown.run.replay && await shown.array("replay.rows_of");
  const place = positions ? positions.indexOf(example) : -1;
  if (place < 0) return null;
  const logits = await shown.array("replay.logits");
  const classes = shown.run.replay.logits.shape[2];
  const start = (place * shown.run.steps.length + row) * classes;
  const own = Array.from(logits.subarray(start, start + classes), (logit) => logit / shown.temperature);
  const top = Math.max(...own);
  const weights = own.map((logit) => Math.exp(logit - top));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

/** The bars: every class, or where there are many the most probable ones and the label. */
function barRows(run, probabilities, label) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  const order = [...probabilities.keys()].sort((one, other) => probabilities[other] - probabilities[one]);
  const kept = new Set([label, ...order.slice(0, BARS)]);
  return [...probabilities.keys()].filter((at) => probabilities.length <= BARS || kept.has(at)).map((at) => ({
    name: className(run, at), probability: probabilities[at],
    kind: at === label ? "label" : at === best ? "predicted" : "other",
  }));
}

/** Title and text of one recorded value. */
function readout(run, name, value) {
  if (name === "predicted") return ["predicted", value < 0 ? "–" : className(run, value)];
  const told = run.measures[name] ?? {};
  const isSharpness = name === SHARPNESS;
  const title = isSharpness ? "log κ" : told.title ?? name.replaceAll("_", " ");
  const digits = name === "distance" && Number.isInteger(value) ? 0 : 3; // tokens are counted
  return [title, shownNumber(value, digits) + (isSharpness || told.unit === "nats" ? " nats" : "")];
}

/** The lines of the small table: measures at the shown row. */
async function readouts(shown) {
  const { run, chosen, row } = shown;
  const lines = [];
  for (const name of Object.keys(run.values)) {
    const value = (await shown.walkOf(name, chosen))?.[row];
    if (value !== undefined) lines.push(readout(run, name, value));
  }
  return lines;
}

/** One explorer; draws whatever changed. */
class Explorer {
  constructor(shown, section, charts, columns) {
    Object.assign(this, { shown, section, charts, columns });
    this.slider = part(section, "step");
  }

  async show(names) {
    const { shown, columns } = this;
    if (shown.chosen === null) return;
    if (names.has("chosen")) this.introduce();
    this.sayStep();
    const id = columns.id[shown.chosen];
    this.showImage(id);
    const lines = await readouts(shown);
    part(this.section, "readouts").replaceChildren(...lines.map(([title, value]) => element("tr", {},
      element("th", { scope: "row" }, title),
      element("td", { className: title === "predicted" ? "words" : "" }, value))));
    await this.fillCharts(columns.label[shown.chosen], names);
  }

  introduce() {
    const { shown, columns } = this;
    const id = columns.id[shown.chosen];
    const named = shown.run.subject === "prompt"
      ? `Prompt ${id}` : `Example ${id}, labelled ${className(shown.run, columns.label[shown.chosen])}`;
    part(this.section, "chosen-title").textContent = named;
    const strip = part(this.section, "strip");
    strip.replaceChildren(...stripOf(shown.run, id));
    strip.hidden = strip.childElementCount === 0;
  }

  sayStep() {
    const { shown, slider } = this;
    slider.value = shown.row;
    const step = `${shown.run.steps[shown.row]}`;
    part(this.section, "step-value").textContent = step;
    slider.setAttribute("aria-valuetext", `step ${step} of ${shown.run.steps.at(-1)}`);
  }

  showImage(id) {
    const { shown } = this;
    const holder = part(this.section, "image");
    const step = shown.run.steps[shown.row];
    const item = nearestPicture(shown.run, id, step);
    holder.hidden = shown.run.subject === "prompt";
    const said = part(this.section, "image-said");
    const image = part(this.section, "image-shown");
    image.hidden = !item;
    if (!item) {
      said.textContent = "No image of this example was kept.";
      return;
    }
    image.src = item.uri;
    image.alt = `Example ${id} at step ${item.step}`;
    said.textContent = item.step === step ? `step ${step}` : `nearest kept: step ${item.step}`;
  }

  async fillCharts(label, names) {
    const { shown, charts } = this;
    const { run } = shown;
    if (charts.example) {
      const walk = await shown.walkOf(SHARPNESS, shown.chosen);
      const curve = shown.replayed?.curves[SHARPNESS] ?? run.walks[0].curves[SHARPNESS];
      if (names.has("chosen") || names.has("replayed")) {
        charts.example.fill("band", curve ? curve.steps.map((step, i) => ({
          step, low: curve.low[i], high: curve.high[i],
        })) : []);
      }
      const points = [...(walk ?? [])].map((value, row) => ({
        step: run.steps[row], value: drawable(value), shown: row === shown.row,
      })).filter(({ value }) => value !== null);
      charts.example.fill("rule", [{ at: run.steps[shown.row] }]).fill("example", points).draw();
    }
    const probabilities = await probabilitiesAt(shown, shown.chosen, shown.row);
    part(this.section, "probabilities").hidden = !probabilities || !charts.bars;
    if (probabilities && charts.bars) charts.bars.fill("bars", barRows(run, probabilities, label)).draw();
  }
}

async function startExplorer(shown, section, specs) {
  if (!part(section, "explorer")) return;
  const columns = await shown.examples();
  const charts = {
    example: await drawnChart(part(section, "example-chart"), specs?.example),
    bars: shown.run.replay ? await drawnChart(part(section, "probabilities"), specs?.probabilities) : null,
  };
  shown.explorerCharts = charts;
  const explorer = new Explorer(shown, section, charts, columns);
  Object.assign(explorer.slider, { min: 0, max: shown.run.steps.length - 1, step: 1 });
  explorer.slider.addEventListener("input", () => shown.change({ row: Number(explorer.slider.value) }));
  let latest = Promise.resolve();
  const show = (names) => {
    latest = latest.then(() => explorer.show(names)); // in the order in which things changed
    return latest;
  };
  shown.subscribe(show);
  show(new Set(["chosen", "row", "replayed"]));
  await latest;
}
