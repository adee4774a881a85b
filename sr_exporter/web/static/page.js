// Keeps a page as it is now, without reloading it.
//
// A change that the exporter streams, or a quarter of a minute, has the page fetched again; what of
// it is other is altered in place, so that folds, focus, selection and scrolling stay. Nothing that a
// source said is ever read as markup here: the server has escaped it, and it arrives as a document.
"use strict";
(() => {
  const CHANGES = document.currentScript.dataset.changes;
  // Between two fetches, at least; so many times as long as the last one took; and at most.
  const LEAST_MS = 500, SHARE = 5, MOST_MS = 15000;
  // After a first change others are about to come.
  const GATHER_MS = 60;
  const TRY_AGAIN_MS = 2000, PATIENCE_MS = 10000;
  // A stream that lives shorter has failed; after so many it is tried with each fetch only.
  const ALIVE_MS = 5000, MOST_FAILURES = 3;

  const sign = document.getElementById("live");
  const words = document.getElementById("live-words");
  const main = () => document.getElementById("main");
  // What the person folded or unfolded stays so.
  const folded = new Map();

  let stream = null, timer = 0, planned = Infinity, fetching = false, changed = false;
  let soonest = 0, lostAt = null;
  let openedAt = 0, failures = 0;
  // The server's time and ours at one moment.
  let serverNow = 0, ourNow = 0;

  function say(state, text) {
    if (sign.dataset.state !== state) sign.dataset.state = state;
    if (words.textContent !== text) words.textContent = text;
  }

  function atServer() {
    return serverNow + (performance.now() - ourNow) / 1000;
  }

  // --- times ----------------------------------------------------------------------------------

  function lasting(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min`;
    if (whole < 86400) {
      const minutes = Math.floor((whole % 3600) / 60);
      return `${Math.floor(whole / 3600)} h` + (minutes ? ` ${minutes} min` : "");
    }
    const days = Math.floor(whole / 86400), hours = Math.floor((whole % 86400) / 3600);
    return `${days} d` + (hours && days < 10 ? ` ${hours} h` : "");
  }

  function age() {
    const now = atServer();
    for (const time of document.querySelectorAll("time[data-at]")) {
      const text = lasting(now - Number(time.dataset.at));
      if (time.textContent !== text) time.firstChild.data = text;
    }
  }

  // --- what is other is altered ---------------------------------------------------------------

  function align(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
      old.replaceWith(fresh);
    } else if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
    } else if (!old.isEqualNode(fresh)) {
      alignAttributes(old, fresh);
      alignChildren(old, fresh);
    }
  }

  function alignAttributes(old, fresh) {
    const keeps = (name) => name === "open" && folded.has(old.id);
    for (const {name} of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !keeps(name)) old.removeAttribute(name);
    }
    for (const {name, value} of fresh.attributes) {
      if (old.getAttribute(name) !== value && !keeps(name)) old.setAttribute(name, value);
    }
  }

  function alignChildren(old, fresh) {
    const named = new Map();
    for (const child of old.children) if (child.id) named.set(child.id, child);
    let place = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const same = child.id && named.get(child.id);
      if (same) {
        // Moving what has the focus would take it away: what stands before it goes instead.
        while (place !== same && same.contains(document.activeElement)) {
          const next = place.nextSibling;
          old.append(place);
          place = next;
        }
        if (place === same) place = same.nextSibling;
        else old.insertBefore(same, place);
        align(same, child);
      } else if (place && !place.id && !child.id && place.nodeName === child.nodeName) {
        const next = place.nextSibling;
        align(place, child);
        place = next;
      } else {
        old.insertBefore(child, place);
      }
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  function show(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.getElementById("main");
    if (!fresh || !fresh.dataset.seq) throw new Error("that is no page of the exporter");
    takeTime(fresh);
    align(main(), document.adoptNode(fresh));
    document.title = page.title;
    const icon = page.querySelector("link[rel=icon]").getAttribute("href");
    const held = document.querySelector("link[rel=icon]");
    if (held.getAttribute("href") !== icon) held.setAttribute("href", icon);
    age();
  }

  function takeTime(from) {
    serverNow = Number(from.dataset.now);
    ourNow = performance.now();
  }

  // --- when it is fetched ---------------------------------------------------------------------

  function plan(inMs) {
    const at = Math.max(performance.now() + inMs, soonest);
    if (document.hidden || fetching || at >= planned) return;
    clearTimeout(timer);
    planned = at;
    timer = setTimeout(refresh, at - performance.now());
  }

  function rest() {
    clearTimeout(timer);
    planned = Infinity;
  }

  async function refresh() {
    rest();
    fetching = true;
    changed = false;
    const began = performance.now();
    let good = false;
    try {
      const answer = await fetch(location.href, {
        cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(PATIENCE_MS),
      });
      // What is not held any more is a page, too.
      if (!answer.ok && answer.status !== 404) throw new Error(`HTTP ${answer.status}`);
      show(await answer.text());
      good = true;
    } catch {
      lose();
    }
    fetching = false;
    const took = performance.now() - began;
    soonest = performance.now() + Math.max(LEAST_MS - took, SHARE * took);
    if (good) {
      listen();
      plan(changed ? 0 : MOST_MS);
    } else {
      soonest = 0;
      plan(TRY_AGAIN_MS);
    }
  }

  function lose() {
    if (stream) stream.close();
    stream = null;
    if (lostAt === null) lostAt = atServer();
    const when = new Date(lostAt * 1000).toISOString().slice(11, 19);
    say("lost", `Connection lost at ${when} UTC: this is how it was then. Trying again.`);
  }

  function listen() {
    if (stream && stream.readyState !== EventSource.CLOSED) {
      if (stream.readyState === EventSource.OPEN) live();
      return;
    }
    const opened = stream = new EventSource(`${CHANGES}?since=${main().dataset.seq}`);
    stream.addEventListener("open", () => {
      openedAt = performance.now();
      live();
    });
    for (const kind of ["change", "gap"]) {
      stream.addEventListener(kind, () => {
        changed = true;
        plan(GATHER_MS);
      });
    }
    stream.addEventListener("error", () => {
      opened.close();
      if (stream !== opened) return;
      stream = null;
      failures = openedAt && performance.now() - openedAt > ALIVE_MS ? 1 : failures + 1;
      openedAt = 0;
      if (failures > MOST_FAILURES) {
        // The page itself can be had: something on the way does not let streams through.
        lostAt = null;
        say("slow", "Changes are not let through: looked at every 15 s");
        return;
      }
      // It may be the stream alone: the page is asked for, and says.
      lose();
      rest();
      plan(TRY_AGAIN_MS / 4);
    });
  }

  function live() {
    lostAt = null;
    say("live", "Live");
  }

  // --- begin ----------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const summary = event.target.closest("summary");
    const group = summary && summary.closest("details");
    if (group) folded.set(group.id, !group.open);
  });

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      rest();
      if (stream) stream.close();
      stream = null;
    } else {
      plan(0);
    }
  });

  takeTime(main());
  say("still", "Connecting");
  listen();
  plan(MOST_MS);
  setInterval(() => document.hidden || age(), 1000);
})();
