// How fast: what was measured.

function latencySection() {
  const { runs, command } = DATA.latency;
  const form = part("latency", ".controls");
  if (!runs.length) {
    say(part("latency", ".answer"), `Nothing has been measured yet. On a machine with a GPU, ${command} does it.`);
    part("latency", "figure").hidden = true;
    return () => {};
  }
  const values = (field) => [...new Set(runs.map((run) => run[field]))].sort((a, b) => (typeof a === "number" ? a - b : 0));
  choice(form, "latency.device", "Device", values("device").map((one) => [one, one]), values("device")[0]);
  choice(form, "latency.action", "Action", values("action").map((one) => [one, one]), values("action")[0]);
  choice(form, "latency.dtype", "Precision", values("dtype").map((one) => [one, one]), values("dtype")[0]);
  choice(form, "latency.batch", "Batch", values("batch").map((one) => [one, one]), values("batch")[0]);

  return function showLatency() {
    const of = (name) => state.get(`latency.${name}`);
    const chosen = runs.filter((run) => run.device === of("device") && run.action === of("action")
      && run.dtype === of("dtype") && run.batch === Number(of("batch")));
    const ok = chosen.filter((run) => run.verdict === "ok");
    for (const what of ["figure", "[data-table]"]) part("latency", what).hidden = !ok.length;
    const name = (run) => [run.model, run.mixer, run.frames ? `${run.frames} frames` : ""].filter(Boolean).join(", ");
    const fastest = Math.min(...ok.map((run) => run.ms));
    const best = ok.find((run) => run.ms === fastest);
    say(part("latency", ".answer"), best
      ? `${ok.length} runs are measured; the fastest is ${name(best)} at ${best.resolution} px: **${digits(best.ms, 3)} ms**.`
      : "No run of these is measured.");
    if (!ok.length) return;
    const rows = ok.flatMap((run) => [
      { px: run.resolution, ms: run.ms, low: run.ms - run.iqr_ms / 2, high: run.ms + run.iqr_ms / 2, kind: run.kind, line: name(run),
        model: name(run), shown: `${digits(run.ms, 3)} ms`, resolution: `${run.resolution} px`, floor: run.floor_ms ?? null },
    ]);
    const x = { field: "px", type: "quantitative", title: "resolution (pixels a side)", scale: { type: "log", base: 2, zero: false, padding: 12 }, axis: { format: "d", values: values("resolution") } };
    const { scale, ticks } = logarithmic(rows.flatMap((row) => [row.low, row.high, row.floor]).filter((ms) => ms > 0));
    const y = { field: "ms", type: "quantitative", scale, title: "milliseconds", axis: { format: "~s", values: ticks } };
    const tooltip = TIP(["model", "model"], ["resolution", "resolution"], ["shown", "median"]);
    draw(part("latency", "[data-chart=lines]"), {
      height: 320, description: "Measured time of a step against resolution; the table below has the numbers.",
      layer: [
        { mark: { type: "line", strokeWidth: 2 }, encoding: { x, y, detail: { field: "line" }, color: KINDS.colour, strokeDash: KINDS.dash } },
        { mark: { type: "rule", strokeWidth: 2, aria: false }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color: KINDS.colour } },
        { mark: { type: "point", filled: true, size: 70, opacity: 1 }, encoding: { x, y, color: KINDS.colour, shape: KINDS.symbol, tooltip } },
        { transform: [{ filter: "isValid(datum.floor)" }], mark: { type: "tick", thickness: 2, size: 22, opacity: 0.8 },
          encoding: { x, y: { ...y, field: "floor" }, color: KINDS.colour, tooltip } },
      ],
    }, rows);
    key(part("latency", "[data-key=lines]"), DATA.kinds.filter((kind) => ok.some((run) => run.kind === kind.id)).map((kind) => [kind.words, look(kind)]));
    paintLooks();
    const filled = (field) => ok.some((run) => run[field] !== undefined && run[field] !== null);
    const figures = [["ms", "ms"], ["iqr_ms", "middle half, ms"], ["floor_ms", "predicted floor, ms"], ["items_per_s", "items a second"],
      ["tflop_per_s", "TFLOP/s"], ["joules_per_item", "J an item"]].filter(([field]) => filled(field));
    const columns = [
      { title: "model", value: name }, { title: "px", value: (run) => run.resolution, number: (run) => run.resolution },
      { title: "verdict", value: (run) => run.verdict, mark: (run) => (run.verdict === "ok" ? "yes" : "no") },
      ...figures.map(([field, title]) => ({ title, value: (run) => (run[field] === undefined || run[field] === null ? "" : digits(run[field], 3)), number: (run) => run[field] ?? undefined })),
    ];
    part("latency", "[data-table]").replaceChildren(table(`${of("action")}, ${of("dtype")}, a batch of ${of("batch")}, on ${of("device")}`, columns, chosen));
  };
}
