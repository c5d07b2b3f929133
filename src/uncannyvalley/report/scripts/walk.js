// The chart of the walk: the rows of its data sets, and the key whose boxes hide walks.

const SHARES = [["total", "log κ"], ["gini", "Gini (confidence)"], ["norm", "norm"], ["geometry", "geometry of W"]];
const SHARPNESS = "log_relative_sharpness";

/** Rows of the curves: the attack's are those that are replayed, where a head is. */
function curveRows(shown) {
  return shown.run.walks.flatMap((walk, position) => {
    if (shown.hidden.has(walk.name)) return [];
    return Object.entries(walk.curves).flatMap(([measure, recorded]) => {
      const curve = (position === 0 && shown.replayed?.curves[measure]) || recorded;
      return curve.steps.map((step, i) => ({
        walk: walk.name, measure, step, median: curve.median[i], low: curve.low[i], high: curve.high[i],
      }));
    });
  });
}

/** The attack's recorded medians, while another head is replayed. */
function ghostRows(shown) {
  const attack = shown.run.walks[0];
  if (!shown.replayed || shown.hidden.has(attack.name)) return [];
  return Object.entries(attack.curves).flatMap(([measure, curve]) =>
    shown.replayed.curves[measure] ? curve.steps.map((step, i) => ({ measure, step, median: curve.median[i] })) : []);
}

function shareRows(shown) {
  const shares = shown.replayed?.shares ?? shown.run.shares;
  return SHARES.flatMap(([name, title]) =>
    (shares[name] ?? []).map((value, i) => ({ share: title, step: shares.steps[i], value })));
}

/** Upright lines at the medians of ridge, flip and valley; those of one step share a line. */
function markRows(marks) {
  const byStep = new Map();
  for (const name of ["ridge", "flip", "valley"]) {
    const at = marks[name];
    if (at !== null && at !== undefined) byStep.set(at, [...(byStep.get(at) ?? []), name]);
  }
  return [...byStep].sort(([one], [other]) => one - other)
    .map(([at, names], i) => ({ at, names: names.join(" = "), line: i }));
}

/** Shaded stretches of the median walk: the climb, what follows the flip, and the valley where it ends in one. */
function phaseRows(marks, { steps, median: heights }) {
  const known = (value) => value !== null && value !== undefined;
  const top = known(marks.flip) ? marks.flip : marks.ridge;
  if (!known(top) || steps.length === 0) return [];
  const last = steps[steps.length - 1];
  const isValley = known(marks.flip) && marks.valley >= marks.flip && heights[heights.length - 1] < heights[0];
  const valley = isValley ? marks.valley : last;
  return [
    { phase: "climb", start: 0, end: top },
    { phase: "flip", start: top, end: known(marks.flip) ? valley : top },
    { phase: "valley", start: valley, end: last },
  ].filter(({ start, end }) => end > start);
}

async function chosenRows(shown) {
  if (shown.chosen === null) return [];
  const measures = Object.keys(shown.run.walks[0].curves);
  const walks = await Promise.all(measures.map((measure) => shown.walkOf(measure, shown.chosen)));
  return measures.flatMap((measure, i) => [...(walks[i] ?? [])].map((value, row) => ({
    measure, step: shown.run.steps[row], value: drawable(value),
  })).filter(({ value }) => value !== null));
}

/** The key: a box for each walk, and what else is drawn. */
function walkKey(shown, holder, looks) {
  for (const { name, title, colour, dashed } of looks) {
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      const hidden = new Set(shown.hidden);
      if (box.checked) hidden.delete(name); else hidden.add(name);
      shown.change({ hidden });
    });
    const swatch = element("span", { className: dashed ? "swatch dashed" : "swatch", "aria-hidden": "true" });
    swatch.style.setProperty("--swatch", `var(--${colour})`);
    holder.append(element("label", {}, box, swatch, title));
  }
}

/** Draws the walk of a run and keeps it true to what is shown. */
async function startWalk(shown, section, charts) {
  const holder = part(section, "walk-chart");
  const chart = await drawnChart(holder, charts?.walk);
  if (!chart) return;
  walkKey(shown, part(section, "walk-key"), charts.key);
  const { run } = shown;

  async function fill(names) {
    const has = (...wanted) => wanted.some((name) => names.has(name));
    if (has("replayed", "hidden")) chart.fill("curves", curveRows(shown)).fill("ghost", ghostRows(shown));
    if (has("replayed")) {
      const { marks, curves } = shown.replayed ?? { marks: run.marks, curves: run.walks[0].curves };
      chart.fill("shares", shareRows(shown)).fill("marks", markRows(marks));
      chart.fill("phases", phaseRows(marks, curves[SHARPNESS]));
    }
    if (has("replayed", "chosen")) chart.fill("chosen", await chosenRows(shown));
    if (has("row", "chosen")) chart.fill("rule", shown.chosen === null ? [] : [{ at: run.steps[shown.row] }]);
    chart.draw();
  }
  shown.chart = chart;
  shown.subscribe(fill);
  await fill(new Set(["replayed", "hidden", "chosen", "row"]));
  await chart.view.runAsync();
  holder.classList.add("drawn");
}
