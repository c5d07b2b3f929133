// Where the page begins: reads its numbers, draws every section, then sets window.uncannyReady.
// window.uncannyPage is what is shown, for readers who like consoles.

function dataIn(id) {
  const block = document.getElementById(id);
  return block ? JSON.parse(block.textContent) : null;
}

/** Copies the command beside the button; says so for a moment. */
function startCopying() {
  for (const button of document.querySelectorAll("button[data-copies]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copies).textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(document.getElementById(button.dataset.copies));
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}

/** One run: its walk first, then what the reader steers. */
async function startRun(run, charts) {
  const section = document.getElementById(run.id);
  const shown = new ShownRun(run);
  await startWalk(shown, section, charts?.runs[run.id]);
  await startChooser(shown, section);
  await startExplorer(shown, section, charts?.runs[run.id]);
  await startTemperature(shown, section);
  startDownloads(shown, section);
  section.classList.add("alive");
  return shown;
}

async function startPage() {
  document.documentElement.classList.add("scripted");
  startCopying();
  const charts = dataIn("charts");
  const runs = [];
  for (const run of dataIn("numbers").runs) runs.push(await startRun(run, charts));
  for (const holder of document.querySelectorAll("[data-chart]")) {
    if (await drawnChart(holder, charts?.others[holder.dataset.chart])) holder.classList.add("drawn");
  }
  window.uncannyPage = { runs, settled };
  window.uncannyReady = true;
  document.documentElement.classList.add("ready");
}

startPage().catch((error) => {
  document.documentElement.classList.remove("scripted"); // what stands still is whole without scripts
  throw error;
});
