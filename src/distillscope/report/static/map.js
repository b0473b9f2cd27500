"use strict";
// The dot under the pointer is the same image in every model's map: shown in all of them, and as a picture below.
(() => {
  const { data } = window.distillscope;
  const plots = [...document.querySelectorAll("#figure-map .plot")];
  const cards = [...document.querySelectorAll("#figure-map .card")];
  let first = 0;
  data.maps.forEach((map, k) => {
    const own = plots.slice(first, first + map.panels);
    const card = cards[k];
    first += map.panels;
    if (!card || !own.length) return;
    const tile = card.querySelector(".tile");
    const said = card.querySelector(".said");
    const slider = card.querySelector("input");
    const rings = own.map((plot) => {
      const ring = document.createElement("div");
      ring.className = "ring";
      ring.hidden = true;
      plot.append(ring);
      return ring;
    });

    function show(i) {
      tile.style.setProperty("--c", i % map.columns);
      tile.style.setProperty("--r", Math.floor(i / map.columns));
      const answers = own.map((plot, j) => {
        const trace = plot.data?.[0];
        if (!trace) return "";
        const { xaxis, yaxis } = plot._fullLayout;
        rings[j].hidden = false;
        rings[j].style.left = `${xaxis._offset + xaxis.c2p(trace.x[i])}px`;
        rings[j].style.top = `${yaxis._offset + yaxis.c2p(trace.y[i])}px`;
        return map.answers[j]?.[i] ? `${trace.meta.label}: ${map.answers[j][i]}` : "";
      }).filter(Boolean);
      said.textContent = [map.labels.length ? `true class ${map.labels[i]}` : "", ...answers, map.ids[i]].filter(Boolean).join(" · ");
      card.classList.add("on");
      slider.value = i;
    }

    slider.addEventListener("input", () => show(Number(slider.value)));
    const wired = new Set();
    const timer = setInterval(() => { // plots are drawn one by one: each is listened to once it is there
      own.forEach((plot) => {
        if (!plot.on || wired.has(plot)) return;
        wired.add(plot);
        plot.on("plotly_hover", (event) => show(event.points[0].pointNumber));
        plot.on("plotly_relayout", () => card.classList.contains("on") && show(Number(slider.value)));
        plot.on("plotly_afterplot", () => card.classList.contains("on") && show(Number(slider.value)));
      });
      if (wired.size < own.length) return;
      clearInterval(timer);
      if (!card.classList.contains("on")) show(0); // an empty card would not say what it is for
    }, 100);
  });
})();
