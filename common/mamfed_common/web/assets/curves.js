// Draws each chart from the data-series of the element that its data-from names, as often as that
// changes. A cross moves over the points; the legend shows the values there, else the latest ones.
"use strict";
(() => {
  const drawn = new Map();
  const dashes = [[], [6, 3], [2, 2], [8, 3, 2, 3]];

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }
  function axis(size) {
    return {
      stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 },
      ticks: { stroke: colour("--line"), width: 1 }, size, font: "12px system-ui, sans-serif",
    };
  }
  function short(value) {
    return value == null ? "–" : String(Number(value.toPrecision(3)));
  }
  function showLatest(plot) {
    if (plot.cursor.idx == null) plot.setLegend({ idx: plot.data[0].length - 1 });
  }
  function options(data, width) {
    const series = data.series.map((each, index) => {
      const stroke = each.main ? colour("--ink") : colour(`--c${index % 6}`);
      return {
        label: each.label, stroke, width: each.main ? 3 : 1.75, spanGaps: true,
        dash: each.main ? [] : dashes[Math.floor(index / 6) % 4],
        points: { show: data.x.length < 40, size: each.main ? 6 : 5 },
        value: (_, value) => short(value),
      };
    });
    return {
      width, height: 240, legend: { live: true }, cursor: { drag: { x: false, y: false } },
      scales: { x: { time: false }, y: { range: data.range ? () => data.range : undefined } },
      axes: [
        {
          ...axis(36), incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
          label: data.label || "round", labelSize: 18, labelFont: "12px system-ui, sans-serif",
        },
        { ...axis(52), values: (_, ticks) => ticks.map(short) },
      ],
      hooks: { ready: [showLatest], setCursor: [showLatest] },
      series: [{ label: data.label || "round", value: (_, value) => short(value) }, ...series],
    };
  }
  function draw(chart, again) {
    const source = document.getElementById(chart.dataset.from);
    const text = source ? source.dataset.series : "";
    const before = drawn.get(chart);
    if (!text) chart.hidden = true;
    if (!text || (before && before.text === text && !again)) return;
    const data = JSON.parse(text);
    const values = [data.x, ...data.series.map((each) => each.values)];
    const names = data.series.map((each) => each.label).join("\n");
    if (before && before.names === names && !again && data.x.length < 40) {
      before.plot.setData(values);
      showLatest(before.plot);
      drawn.set(chart, { ...before, text });
      return;
    }
    if (before) before.plot.destroy();
    chart.hidden = !data.x.length;
    if (!data.x.length) {
      drawn.delete(chart);
      return;
    }
    const plot = new uPlot(options(data, chart.clientWidth || 300), values, chart);
    drawn.set(chart, { plot, text, names });
  }
  function drawAll(again) {
    for (const chart of document.querySelectorAll(".chart[data-from]")) draw(chart, again);
  }
  if (!document.querySelector(".chart[data-from]")) return;
  drawAll(false);
  new MutationObserver(() => drawAll(false)).observe(document.body, {
    subtree: true, childList: true, attributes: true, attributeFilter: ["data-series"],
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
  new ResizeObserver(() => {
    for (const [chart, { plot }] of drawn) {
      if (chart.clientWidth && chart.clientWidth !== plot.width) {
        plot.setSize({ width: chart.clientWidth, height: 240 });
      }
    }
  }).observe(document.getElementById("main"));
})();
