/* The recorded path under the head W/T, b/T: what uncannyvalley.replaying does with a temperature, for the page.
 *
 * Pure functions of typed arrays. Everything is said relative to the most probable class t, as in softmax.py: with
 * q_s = exp((z_s − max_{s≠t} z_s)/T) and m = log of the second largest probability no term is negative, so nothing
 * cancels where p_t rounds to 1. NaN stands for rows that were not recorded.
 */

/* logits (count · rows · classes), logNorm (count · rows) = log|φ|, logPair (classes · classes) = log ½|w_s − w_s'|²,
 * labels (count). Returns arrays of count · rows numbers; predicted is −1 where nothing was recorded. */
function replayWalk(walk, temperature) {
  const { logits, logNorm, logPair, labels, count, rows, classes } = walk;
  const length = count * rows;
  const found = {
    logSharpness: new Float64Array(length).fill(NaN),
    loss: new Float64Array(length).fill(NaN),
    confidence: new Float64Array(length).fill(NaN),
    logGini: new Float64Array(length).fill(NaN),
    predicted: new Int16Array(length).fill(-1),
  };
  const halfDistances = Float64Array.from(logPair, Math.exp);
  const weights = new Float64Array(classes);
  for (let row = 0; row < length; row += 1) {
    const scores = logits.subarray(row * classes, (row + 1) * classes);
    if (scores.some(Number.isNaN)) continue;
    const softmax = softmaxFromTop(scores, temperature, weights);
    const logVariance = logClassVariance(softmax, halfDistances);
    found.logSharpness[row] = 2 * logNorm[row] + logVariance - 2 * Math.log(temperature);
    found.loss[row] = lossOfLabel(scores, labels[Math.floor(row / rows)], temperature);
    found.confidence[row] = Math.exp(softmax.logTop);
    found.logGini[row] = logGiniOf(softmax);
    found.predicted[row] = softmax.top;
  }
  return found;
}

/* t, q_s (0 at t, written into `weights`), their sum, log p_t, m and e^m. Of equal logits the first is the top. */
function softmaxFromTop(scores, temperature, weights) {
  let top = 0;
  let second = -Infinity;
  for (let one = 1; one < scores.length; one += 1) {
    if (scores[one] > scores[top]) {
      second = scores[top];
      top = one;
    } else if (scores[one] > second) {
      second = scores[one];
    }
  }
  let sum = 0;
  for (let one = 0; one < scores.length; one += 1) {
    weights[one] = one === top ? 0 : Math.exp((scores[one] - second) / temperature);
    sum += weights[one];
  }
  const gap = (scores[top] - second) / temperature;
  const logTop = -Math.log1p(Math.exp(-gap) * sum);
  const logScale = logTop - gap;
  return { top, weights, sum, logTop, logScale, scale: Math.exp(logScale) };
}

/* log Var_p(w) = m + log(p_t Σ q_s D_st + e^m ½ Σ q_s q_s' D_ss'), sums over s, s' ≠ t, D = |w_s − w_s'|². */
function logClassVariance({ top, weights, logTop, logScale, scale }, halfDistances) {
  const classes = weights.length;
  let toTop = 0;
  let amongOthers = 0;
  for (let one = 0; one < classes; one += 1) {
    const weight = weights[one];
    if (weight === 0) continue;
    const from = one * classes;
    toTop += weight * halfDistances[from + top];
    let beside = 0;
    for (let other = 0; other < one; other += 1) beside += weights[other] * halfDistances[from + other];
    amongOthers += weight * beside;
  }
  return logScale + Math.log(2 * (Math.exp(logTop) * toTop + scale * amongOthers));
}

/* log(1 − Σ p²) = m + log(2 p_t Σ q + e^m ((Σ q)² − Σ q²)). */
function logGiniOf({ weights, sum, logTop, logScale, scale }) {
  let squares = 0;
  for (let one = 0; one < weights.length; one += 1) squares += weights[one] * weights[one];
  return logScale + Math.log(2 * Math.exp(logTop) * sum + scale * (sum * sum - squares));
}

/* ℓ = softplus(g), g = logsumexp_{s≠y} z_s/T − z_y/T: it keeps its digits where p_y rounds to 1. */
function lossOfLabel(scores, label, temperature) {
  let highest = -Infinity;
  for (let one = 0; one < scores.length; one += 1) {
    if (one !== label && scores[one] > highest) highest = scores[one];
  }
  let sum = 0;
  for (let one = 0; one < scores.length; one += 1) {
    if (one !== label) sum += Math.exp((scores[one] - highest) / temperature);
  }
  const gap = (highest - scores[label]) / temperature + Math.log(sum);
  return gap > 0 ? gap + Math.log1p(Math.exp(-gap)) : Math.log1p(Math.exp(gap));
}

/* Flip, ridge, valley (−1: none), height and depth of each example, as analysis/phase_table.py defines them.
 * logSharpness and predicted (count · rows) as replayWalk returns them, labels (count). */
function replayPhases({ logSharpness, predicted, labels, count, rows }) {
  const found = {
    flip: new Int32Array(count).fill(-1),
    ridge: new Int32Array(count).fill(-1),
    valley: new Int32Array(count).fill(-1),
    height: new Float64Array(count).fill(NaN),
    depth: new Float64Array(count).fill(NaN),
  };
  for (let example = 0; example < count; example += 1) {
    const first = example * rows;
    const clean = logSharpness[first];
    let last = -1;
    for (let step = 0; step < rows; step += 1) {
      const here = logSharpness[first + step];
      const guess = predicted[first + step];
      if (found.flip[example] < 0 && guess >= 0 && guess !== labels[example]) found.flip[example] = step;
      if (Number.isNaN(here)) continue;
      last = step;
      const ridge = found.ridge[example];
      if (ridge < 0 || here > logSharpness[first + ridge]) found.ridge[example] = step;
      const flipped = found.flip[example] >= 0;
      if (flipped && found.valley[example] < 0 && here < clean) found.valley[example] = step;
    }
    if (last < 0) continue;
    found.height[example] = changeOf(logSharpness[first + found.ridge[example]], clean);
    found.depth[example] = changeOf(clean, logSharpness[first + last]);
  }
  return found;
}

/* end − start, 0 where both are the same infinity. */
function changeOf(end, start) {
  return end === start ? 0 : end - start;
}
