"use strict";
(() => {
  const line = document.getElementById("state"), frame = document.getElementById("page");
  let version = 0, place = 0;

  function told(state) {
    const done = state.finished >= state.trials ? "The run is finished." : "Watching.";
    const changed = state.changed ? `, last change ${state.changed}` : "";
    return `${state.finished} of ${state.trials} trials finished${changed}. ${state.message || done}`;
  }

  // A new page keeps the reader's place: figures are drawn late, so it is sought for a second.
  frame.addEventListener("load", () => {
    const inside = frame.contentWindow, until = Date.now() + 1000;
    const seek = () => {
      inside.scrollTo(0, place);
      if (inside.scrollY < place && Date.now() < until) setTimeout(seek, 100);
    };
    if (place) seek();
  });

  async function ask() {
    let text;
    try {
      const state = await (await fetch("/state", { cache: "no-store" })).json();
      if (state.version !== version) {
        version = state.version;
        place = frame.contentWindow.scrollY;
        frame.contentWindow.location.replace(`/report.html?v=${version}`);
      }
      text = told(state);
    } catch {
      text = "The server has stopped: what is shown is the last page.";
    }
    if (line.textContent !== text) line.textContent = text;
    setTimeout(ask, 2000);
  }
  ask();
})();
