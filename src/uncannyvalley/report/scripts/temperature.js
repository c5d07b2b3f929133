// The temperature: the walk replayed with the head W/T, b/T, its curves, shares and phases beside those recorded.

/** Decodes what a replay needs; the selection is the examples that were right at first, as in every curve. */
async function replayableWalk(shown) {
  const { replay, steps } = shown.run;
  const [positions, logits, logNorm, logPair, labels, right] = await Promise.all([
    shown.array("replay.rows_of"), shown.array("replay.logits"), shown.array("replay.log_feature_norm"),
    shown.array("replay.log_pair"), shown.array("per_example.label"), shown.array("per_example.correct"),
  ]);
  const count = positions.length;
  const every = [...positions.keys()];
  const correct = every.filter((place) => right[positions[place]] === 1);
  return {
    placeOf: new Map(every.map((place) => [positions[place], place])),
    selection: correct.length ? correct : every,
    numbers: {
      logits, logNorm, logPair, labels: Int32Array.from(positions, (example) => labels[example]), count,
      rows: steps.length, classes: replay.log_pair.shape[0],
    },
  };
}

/** A walk that ended stays at its last row, in runs of watched attacks as their recorded curves do. */
function held(values, rows) {
  const kept = Float64Array.from(values);
  for (let start = 0; start < kept.length; start += rows) {
    let last = rows - 1;
    while (last >= 0 && Number.isNaN(kept[start + last])) last -= 1;
    if (last >= 0) kept.fill(kept[start + last], start + last + 1, start + rows);
  }
  return kept;
}

function curveOf(values, walk, run, recorded) {
  const steps = recorded.steps.filter((step) => run.steps.includes(step));
  const bands = steps.map((step) => band(values, run.steps.length, run.steps.indexOf(step), walk.selection));
  const column = (name) => bands.map((one) => drawable(one[name]));
  return { steps, median: column("median"), low: column("low"), high: column("high") };
}

/** Mean change since the start of log κ, Gini, norm and geometry, over examples all of whose changes are finite. */
function sharesOf(parts, walk, run) {
  const rows = run.steps.length;
  const names = Object.keys(parts);
  const change = (name, place, row) => {
    const [now, first] = [parts[name][place * rows + row], parts[name][place * rows]];
    return now - first;
  };
  const infinite = (value) => value === Infinity || value === -Infinity;
  const whole = walk.selection.filter((place) => names.every((name) => run.steps.every(
    (_, row) => !infinite(change(name, place, row)))));
  const shares = { steps: run.shares.steps.filter((step) => run.steps.includes(step)) };
  for (const name of names) {
    shares[name] = shares.steps.map((step) => {
      const row = run.steps.indexOf(step);
      const there = whole.map((place) => change(name, place, row)).filter((value) => !Number.isNaN(value));
      return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
    });
  }
  return shares;
}

/** Everything that the page shows of the walk at one temperature. */
function replayedAt(walk, run, temperature) {
  const { numbers } = walk;
  const found = replayWalk(numbers, temperature);
  const phases = replayPhases({ ...numbers, ...found });
  const kept = (values) => (run.observed ? held(values, numbers.rows) : values);
  const drawn = { [SHARPNESS]: kept(found.logSharpness), loss: kept(found.loss), confidence: kept(found.confidence) };
  const total = drawn[SHARPNESS];
  const gini = kept(found.logGini);
  const norm = kept(Float64Array.from(numbers.logNorm, (value) => 2 * value));
  const geometry = total.map((value, i) => value - gini[i] - norm[i]);
  const recorded = run.walks[0].curves;
  const curves = Object.fromEntries(Object.entries(drawn).filter(([name]) => recorded[name])
    .map(([name, values]) => [name, curveOf(values, walk, run, recorded[name])]));
  const middle = (found) => drawable(median(
    walk.selection.map((place) => found[place]).filter((row) => row >= 0).map((row) => run.steps[row])));
  return {
    temperature, curves, phases, placeOf: walk.placeOf, shares: sharesOf({ total, gini, norm, geometry }, walk, run),
    walks: {
      [SHARPNESS]: found.logSharpness, loss: found.loss, confidence: found.confidence, log_gini: found.logGini,
      log_geometry: found.logSharpness.map((value, i) => value - found.logGini[i] - 2 * numbers.logNorm[i]),
    },
    marks: { ridge: middle(phases.ridge), flip: middle(phases.flip), valley: middle(phases.valley) },
  };
}

/** Height, depth and valley share of some phases, over the selection of a replay. */
function phaseFacts(phases, selection) {
  const of = (values) => selection.map((place) => values[place]);
  return {
    height: median(of(phases.height)), depth: median(of(phases.depth)),
    valley: of(phases.valley).filter((step) => step >= 0).length / selection.length,
  };
}

function fillFacts(body, recorded, now) {
  const rows = [
    ["ridge height, nats", "height", (value) => shownNumber(value)],
    ["valley depth, nats", "depth", (value) => shownNumber(value)],
    ["entered the valley", "valley", (value) => `${shownNumber(100 * value, 0)} %`],
  ];
  body.replaceChildren(...rows.map(([title, name, written]) => element("tr", {},
    element("th", { scope: "row" }, title),
    element("td", {}, written(recorded[name])),
    element("td", {}, written(now[name])))));
}

/** Brings the slider to life; hidden where the run kept no logits. Nothing is decoded before the slider is moved. */
async function startTemperature(shown, section) {
  const holder = part(section, "temperature");
  if (!holder || !shown.run.replay) return;
  const [slider, facts] = [part(section, "temperature-slider"), part(section, "temperature-facts")];
  const { minimum, maximum } = shown.run.replay;
  Object.assign(slider, { min: Math.log10(minimum), max: Math.log10(maximum), step: 0.01, value: 0 });
  const recorded = await recordedFacts(shown);
  const walk = oncePromised(() => replayableWalk(shown));

  async function show() {
    const temperature = 10 ** Number(slider.value);
    part(section, "temperature-value").textContent = temperature.toFixed(2);
    slider.setAttribute("aria-valuetext", `temperature ${temperature.toFixed(2)}`);
    const replayed = Number(slider.value) === 0 ? null : replayedAt(await walk(), shown.run, temperature);
    fillFacts(facts, recorded, replayed ? phaseFacts(replayed.phases, (await walk()).selection) : recorded);
    shown.change({ temperature: replayed ? temperature : 1, replayed });
  }
  slider.addEventListener("input", oncePerFrame(show));
  part(section, "temperature-reset").addEventListener("click", () => {
    slider.value = 0;
    show();
  });
  fillFacts(facts, recorded, recorded);
  holder.hidden = false;
}

/** The same facts as they were recorded, of the examples that are replayed. */
async function recordedFacts(shown) {
  const [positions, columns] = await Promise.all([shown.array("replay.rows_of"), shown.examples()]);
  const every = [...positions];
  const correct = every.filter((example) => columns.correct[example] === 1);
  return phaseFacts(columns, correct.length ? correct : every);
}
