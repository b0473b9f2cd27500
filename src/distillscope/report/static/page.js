"use strict";
// Draws the prepared panels, and keeps theme, highlight and axis scale. Everything it shows is in the JSON above it.
(() => {
  const data = JSON.parse(document.getElementById("distillscope-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)").matches;
  const panels = new Map(); // element -> {spec, log}
  let printing = false;
  let highlighted = null;
  let picked = null; // names of the arms that are drawn; null: all

  const tone = () => (dark.matches && !printing ? 1 : 0);

  // Blanks the tick labels that would run into each other on a narrow screen; the first and the last are kept.
  function thinned(axis, log, width) {
    const at = axis.tickvals.map((v) => (log ? Math.log10(v) : v));
    const [low, high] = axis.range && !log ? axis.range : [Math.min(...at), Math.max(...at)];
    const pixels = at.map((v) => ((v - low) / (high - low || 1)) * (width - 100));
    const room = (i) => 7 * Math.max(...axis.ticktext[i].split("<br>").map((t) => t.replace(/<[^>]*>/g, "").length));
    const last = at.length - 1;
    let end = -Infinity;
    return axis.ticktext.map((text, i) => {
      const half = room(i) / 2;
      const hits = pixels[i] - half < end || (i < last && pixels[i] + half > pixels[last] - room(last) / 2);
      if (hits && i < last) return "";
      end = pixels[i] + half;
      return text;
    });
  }

  // Pale to dark on a light ground, dark to bright on a dark one: in both, more is further from the ground.
  const HEAT = [[[0, "#f3f6fa"], [0.25, "#a9c8e6"], [0.5, "#4d94c9"], [0.75, "#12629f"], [1, "#062a4d"]],
    [[0, "#20262d"], [0.25, "#17476f"], [0.5, "#2f7fb8"], [0.75, "#7db9e6"], [1, "#e6f3ff"]]];

  const shown = (arms) => !picked || !arms?.length || arms.some((a) => picked.has(a));

  function themed({ spec, log, unit, view }, width) {
    const t = tone();
    let bars = 0; // bars close the gaps that arms leave which are not drawn
    const ticks = [];
    const [ink, line] = t ? ["#c9d0d8", "#2f353c"] : ["#3b434c", "#e4e7eb"];
    const traces = spec.data.map((source) => {
      const trace = { ...source };
      const { colours, kind, highlight, groups, arms } = source.meta;
      if (kind === "heat") {
        const bar = { ...source.colorbar, tickfont: { color: ink, size: 11 } };
        const scale = source.meta.root ? HEAT[t].map(([at, colour]) => [at * at, colour]) : HEAT[t];
        return { ...trace, colorscale: scale, colorbar: bar };
      }
      if (kind !== "cloud" && !shown(arms)) return { ...trace, visible: false };
      if (kind === "bars") {
        ticks.push(spec.layout.xaxis.ticktext?.[source.x[0]]);
        trace.x = [bars++];
      }
      if (kind === "cloud" && view && spec.views[view]) Object.assign(trace, spec.views[view]);
      const colour = colours[t];
      const dim = highlighted !== null && highlight !== highlighted;
      if (trace.line) trace.line = { ...trace.line, color: colour };
      if (trace.marker) trace.marker = { ...trace.marker, color: colour, line: { ...(trace.marker.line || {}), color: colour } };
      if (kind === "cloud" && groups.length) {
        trace.marker = { ...source.marker, line: { width: 0 }, color: groups.map((g) => data.palette[g % data.palette.length][t]) };
      }
      if (kind === "band") trace.fillcolor = colour;
      if (trace.textfont) trace.textfont = { ...trace.textfont, color: colour };
      for (const axis of ["error_x", "error_y"]) {
        if (trace[axis]) trace[axis] = { ...trace[axis], color: kind === "bars" ? ink : colour };
      }
      const base = source.opacity === undefined ? 1 : source.opacity;
      trace.opacity = dim ? base * 0.15 : base;
      return trace;
    });
    const source = spec.layout;
    const axis = (a) => ({ ...a, gridcolor: line, linecolor: line, zerolinecolor: ink, tickfont: { color: ink, size: 12 },
      title: { ...a.title, font: { color: ink, size: 12.5 } } });
    const x = axis(source.xaxis);
    if (spec.can_log) {
      x.type = log ? "log" : "linear";
      if (!log) delete x.dtick;
    }
    if (bars) Object.assign(x, { tickvals: ticks.map((_, i) => i), ticktext: ticks, range: [-0.6, bars - 0.4] });
    const chosen = unit && spec.units?.[unit];
    if (chosen) {
      x.ticktext = chosen.ticktext;
      x.title = { ...x.title, text: chosen.title };
    }
    if (x.tickangle === -40 && width < 24 * x.tickvals.length) x.tickangle = -90;
    if (x.type === "log" && !x.tickvals && width < 400) { // 1, 2, 5 of every decade would run into each other
      const at = spec.data.flatMap((d) => [d.x[0], d.x[d.x.length - 1]]).filter((v) => v > 0);
      if (Math.max(...at) / Math.min(...at) > 50) x.dtick = 1;
    }
    if (x.tickvals && !x.tickangle) x.ticktext = thinned(x, source.xaxis.type === "log", width);
    const layout = {
      ...source, xaxis: x, yaxis: axis(source.yaxis), paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.documentElement).fontFamily, color: ink, size: 12.5 },
      hoverlabel: { bgcolor: t ? "#262c33" : "#ffffff", bordercolor: line, font: { color: t ? "#f1f3f5" : "#16191d", size: 13 }, align: "left" },
      dragmode: coarse ? false : "zoom", // a finger scrolls the page, it does not zoom the plot
      shapes: source.shapes.map((s, i) => ({ ...s, visible: shown(spec.mark_arms?.[i]), line: { ...s.line, color: spec.mark_colours[i][t] } })),
      annotations: source.annotations.map((a, i) => ({ ...a, visible: shown(spec.mark_arms?.[i]), font: { ...a.font, color: spec.mark_colours[i][t] } })),
    };
    return [traces, layout];
  }

  // Plotly 7 offers to upload a chart to its maker's server unless told not to.
  const config = { displaylogo: false, showTips: false, showSendToCloud: false, plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"] };

  function draw(element) {
    const state = panels.get(element);
    const [traces, layout] = themed(state, element.clientWidth);
    Object.assign(layout, { width: element.clientWidth, height: element.clientHeight });
    state.drawn = true;
    return Plotly.react(element, traces, layout, config);
  }

  const redraw = () => Promise.all([...panels].filter(([, s]) => s.drawn).map(([e]) => draw(e)));
  const drawAll = () => Promise.all([...panels.keys()].map(draw));

  function save(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 5000);
  }

  // Every drawn value as a tidy row, read back from what is drawn.
  function rowsOf(figure) {
    return figure.panels.flatMap((panel) => panel.data.filter((t) => t.meta.kind !== "band").flatMap((t) => t.meta.kind === "heat"
      ? t.z.flatMap((row, i) => row.map((value, j) => ({ panel: panel.title, model: t.meta.label, row: t.meta.rows[i],
        column: t.meta.columns[j], value, of: t.meta.of, [data.n_of || "seeds"]: t.meta.n })))
      : t.x.map((x, i) => ({ panel: panel.title, model: t.meta.label, kind: t.meta.kind, x, y: t.y[i],
        low: t.customdata?.[i][0], high: t.customdata?.[i][1], [data.n_of || "seeds"]: t.meta.n }))));
  }

  function csv(rows) {
    if (!rows.length) return "";
    const cell = (v) => {
      if (v === null || v === undefined) return "";
      let text = String(v);
      if (typeof v === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text; // a spreadsheet would run it as a formula
      return /[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
    };
    const head = Object.keys(rows[0]);
    return [head.join(","), ...rows.map((r) => head.map((h) => cell(r[h])).join(","))].join("\n") + "\n";
  }

  async function saveSvg(figure, elements) {
    for (const [i, element] of elements.entries()) {
      const [traces, layout] = themed(panels.get(element), 640);
      const named = traces.filter((t) => t.visible !== false).map((t) => ({ ...t, showlegend: !["band", "faint", "bars"].includes(t.meta.kind),
        ...(t.meta.kind === "heat" ? { showscale: true } : {}) }));
      const ground = getComputedStyle(document.documentElement).getPropertyValue("--card");
      const whole = { ...layout, showlegend: true, paper_bgcolor: ground, legend: { orientation: "h", y: -0.3 }, title: { text: "" } };
      const url = await Plotly.toImage({ data: named, layout: whole }, { format: "svg", width: 640, height: 480 });
      const text = decodeURIComponent(url.slice(url.indexOf(",") + 1));
      save(elements.length > 1 ? `${figure.key}-${i + 1}.svg` : `${figure.key}.svg`, "image/svg+xml", text);
    }
  }

  for (const figure of data.figures) {
    const root = document.getElementById("figure-" + figure.key);
    if (!root) continue;
    const elements = [...root.querySelectorAll(".plot")];
    figure.panels.forEach(({ data: traces }) => traces.forEach((band, i) => {
      if (band.meta.kind !== "band") return;
      const { x, customdata: ends } = traces[i + 1];
      band.x = [...x, ...x.slice().reverse()];
      band.y = [...ends.map((e) => e[1]), ...ends.map((e) => e[0]).slice().reverse()];
    }));
    elements.forEach((element, i) => {
      panels.set(element, { spec: figure.panels[i], log: figure.panels[i].layout.xaxis.type === "log", drawn: false });
    });
    root.querySelectorAll(".tool").forEach((button) => button.addEventListener("click", () => {
      const { choice } = button.dataset;
      if (choice) {
        button.parentElement.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
        elements.forEach((e) => { panels.get(e)[button.dataset.do] = choice; });
        elements.forEach(draw);
      }
      if (button.dataset.do === "csv") save(figure.key + ".csv", "text/csv", csv(rowsOf(figure)));
      if (button.dataset.do === "svg") saveSvg(figure, elements);
      if (button.dataset.do === "log") {
        const on = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(on));
        button.textContent = on ? "log x" : "linear x";
        elements.forEach((e) => { panels.get(e).log = on; });
        elements.forEach(draw);
      }
    }));
  }

  // What is shown as pictures has its rows in the data.
  for (const [key, table] of Object.entries(data.tables || {})) {
    const rows = table.rows.map((row) => Object.fromEntries(row.map((v, i) => [table.columns[i], v])));
    document.querySelector(`#figure-${key} [data-do="csv"]`)?.addEventListener("click", () => save(key + ".csv", "text/csv", csv(rows)));
  }

  // results.csv, whole, from its packed columns.
  document.getElementById("all-results")?.addEventListener("click", () => {
    const columns = Object.entries(data.results);
    const rows = columns[0][1].at.map((_, i) => Object.fromEntries(columns.map(([name, { levels, at }]) => [name, levels[at[i]]])));
    save("results.csv", "text/csv", csv(rows));
  });

  // Where arms are many, the first alone or with one other: all of them together show nothing.
  const arms = document.getElementById("arms");
  const pick = () => { picked = arms?.value ? new Set([arms.options[0].value, arms.value]) : null; };
  arms?.addEventListener("change", () => { pick(); redraw(); });
  pick();

  // One panel per task, top to bottom, so that the page can be read and scrolled while the rest is drawn.
  (function next(waiting) {
    const element = waiting.shift();
    if (element) draw(element).then(() => setTimeout(next, 0, waiting));
    else document.documentElement.dataset.drawn = "all";
  })([...panels.keys()].sort((a, b) => (a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1)));

  const chips = [...document.querySelectorAll(".chip")];
  chips.forEach((chip) => chip.addEventListener("click", () => {
    highlighted = highlighted === chip.dataset.highlight ? null : chip.dataset.highlight;
    chips.forEach((c) => c.setAttribute("aria-pressed", String(c.dataset.highlight === highlighted)));
    document.querySelectorAll("[data-model]").forEach((e) => {
      e.style.opacity = highlighted === null || e.dataset.model === highlighted ? "" : "0.3";
    });
    redraw();
  }));

  document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => {
    const text = document.getElementById(button.dataset.copy).textContent;
    const said = button.textContent;
    navigator.clipboard?.writeText(text).then(() => {
      button.textContent = "copied";
      setTimeout(() => { button.textContent = said; }, 1500);
    });
  }));

  let resized = 0;
  addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(redraw, 150); });
  dark.addEventListener("change", redraw);
  // Plots are sized in pixels: for paper the page is first narrowed to a sheet's width, then they are drawn again.
  function paper(on) {
    printing = on;
    document.documentElement.classList.toggle("printing", on);
    drawAll();
  }
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
  window.distillscope = { data, panels, drawAll, get highlighted() { return highlighted; } };
})();

// The dot under the pointer is the same image in every model's map: shown in all of them, and as a picture below.
(() => {
  const { data } = window.distillscope;
  const plots = [...document.querySelectorAll("#figure-map .plot")];
  const cards = [...document.querySelectorAll("#figure-map .card")];
  let first = 0;
  (data.maps || []).forEach((map, k) => {
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

// Search and sort of the tables that ask for it. Without it they are read as they are.
(() => {
  for (const box of document.querySelectorAll("[data-search]")) {
    const table = document.getElementById(box.dataset.search);
    const said = document.getElementById(box.dataset.search + "-count");
    const rows = [...table.tBodies[0].rows];
    const texts = rows.map((row) => (row.dataset.keys + " " + row.textContent).toLowerCase());
    box.addEventListener("input", () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      said.textContent = words.length ? `${shown} of ${rows.length}` : "";
    });
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => {
        const { sort } = row.cells[column].dataset;
        return sort === undefined ? row.cells[column].textContent.toLowerCase() : sort === "" ? null : Number(sort);
      };
      const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
      const sorted = rows.map((row) => [value(row), row]).sort(([a], [b]) =>
        a === null || b === null ? (a === null) - (b === null) : up ? order(a, b) : order(b, a)); // the empty ones last, either way
      table.tBodies[0].append(...sorted.map(([, row]) => row));
    }));
  }
})();
