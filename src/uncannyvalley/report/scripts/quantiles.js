// Medians and quantiles as numpy has them: linear between neighbours, NaN left out.

/** The quantile of an ascending array; NaN of an empty one. */
function quantile(sorted, share) {
  if (sorted.length === 0) return NaN;
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  const low = sorted[below];
  const high = sorted[above];
  return low === high ? low : low + (place - below) * (high - low);
}

function ascending(values) {
  return Float64Array.from(values.filter((value) => !Number.isNaN(value))).sort();
}

function median(values) {
  return quantile(ascending(values), 0.5);
}

/** Median and 10–90 % of the examples at `places`, at one row of an array of `rows` columns. */
function band(values, rows, row, places) {
  const sorted = ascending(places.map((place) => values[place * rows + row]));
  return { median: quantile(sorted, 0.5), low: quantile(sorted, 0.1), high: quantile(sorted, 0.9) };
}

/** Vega leaves a gap where it finds null; infinities have no place on an axis either. */
function drawable(value) {
  return Number.isFinite(value) ? value : null;
}
