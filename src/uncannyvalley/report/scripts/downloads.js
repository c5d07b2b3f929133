// Downloads: the numbers shown as CSV, made here, so that they work from disk.

/** One cell; text that a spreadsheet would take for a formula gets an apostrophe before it. */
function cell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (typeof value === "number") return value === Infinity ? "inf" : value === -Infinity ? "-inf" : String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv(header, rows) {
  return [header, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** The curves and shares as they are shown: hidden walks left out, the attack's at the shown temperature. */
function curvesCsv(shown) {
  const attack = shown.run.walks[0].name;
  const header = ["walk", "temperature", "measure", "step", "median", "low_10", "high_90", "mean"];
  const heat = (name) => (name === attack ? shown.temperature : 1);
  const rows = curveRows(shown).map((row) => [
    row.walk, heat(row.walk), row.measure, row.step, row.median, row.low, row.high, null]);
  const shares = shareRows(shown).map((row) => [
    attack, shown.temperature, `change of log κ: ${row.share}`, row.step, null, null, null, row.value]);
  return csv(header, rows.concat(shares));
}

/** Every example's phases; where a head is replayed, those of it. */
async function examplesCsv(shown) {
  const at = (step) => (step === undefined || step < 0 ? null : step);
  const heat = (example) => (shown.replayed?.placeOf.has(example) ? shown.temperature : 1);
  const rows = exampleRows(shown, await shown.examples()).map((row) => [
    row.id, row.label, row.name, row.correct ? 1 : 0, at(row.flip), at(row.ridge), at(row.valley), row.height,
    row.depth, heat(row.example)]);
  return csv(["id", "label", "class", "right_at_first", "flip_step", "ridge_step", "valley_step", "ridge_height",
    "depth", "temperature"], rows);
}

function save(name, text) {
  const address = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  const link = element("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function startDownloads(shown, section) {
  part(section, "save-curves")?.addEventListener("click", () => save(`${shown.run.id}-curves.csv`, curvesCsv(shown)));
  part(section, "save-examples")?.addEventListener("click", async () =>
    save(`${shown.run.id}-examples.csv`, await examplesCsv(shown)));
}
