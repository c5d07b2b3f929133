// Elements of the page. Data becomes text and attributes, never markup.

/** A new element; `properties` are set on it, those with a hyphen as attributes. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** What stands in the part of a section that bears this name, or null. */
function part(section, name) {
  return section.querySelector(`[data-part="${name}"]`);
}

const underWay = new Set();

/** Calls `work` once before the next drawing of the page, however often it is asked for. */
function oncePerFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    const done = new Promise((resolve) => { requestAnimationFrame(resolve); }).then(() => {
      asked = false;
      return work();
    });
    underWayUntil(done);
  };
}

function underWayUntil(done) {
  const noted = Promise.resolve(done).finally(() => underWay.delete(noted));
  underWay.add(noted);
}

/** Resolves when everything that was asked for is drawn. */
async function settled() {
  await new Promise((resolve) => { setTimeout(resolve); });
  while (underWay.size > 0) await Promise.all(underWay);
}

/** What `work` promises, begun when first asked for. */
function oncePromised(work) {
  let promise = null;
  return () => {
    promise ??= work();
    return promise;
  };
}
