// Charts: specifications made with Vega-Altair, drawn by Vega-Embed in the width that the page has for them.

const ERRORS_ONLY = 1; // an empty data set is no reason to warn
const EMBEDDING = { renderer: "svg", ast: true, actions: false, mode: "vega-lite", logLevel: ERRORS_ONLY };
const NARROWEST = 220;

/** Draws a specification into `holder`; null where the page came without the drawing library. */
async function drawnChart(holder, spec) {
  if (!holder || !spec || typeof vegaEmbed !== "function") return null;
  const place = element("div", { className: "drawing" });
  holder.append(place);
  const { view } = await vegaEmbed(place, spec, EMBEDDING);
  const chart = {
    view,
    fill(name, rows) {
      view.data(name, rows);
      return chart;
    },
    draw: oncePerFrame(() => view.runAsync()),
  };
  await fitted(view, place);
  new ResizeObserver(oncePerFrame(() => fitted(view, place))).observe(holder);
  return chart;
}

/** Gives the chart the width of its holder, less what stands beside its panels. */
async function fitted(view, place) {
  for (let round = 0; round < 2; round += 1) {
    const room = place.parentElement.clientWidth;
    const drawing = place.querySelector("svg");
    if (room === 0 || !drawing) return;
    const beside = Number(drawing.getAttribute("width")) - view.width();
    const width = Math.max(NARROWEST, Math.floor(room - beside));
    if (width === view.width()) return;
    await view.width(width).runAsync();
  }
}
