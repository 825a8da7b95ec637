// How fast: what was measured, and floors, below which no implementation comes.

function latencySection() {
  const { command } = DATA.latency;
  const [runs, floors] = [DATA.latency.runs, DATA.latency.floors].map(unpacked);
  const every = [...runs, ...floors];
  const form = part("latency", ".controls");
  const values = (field, among = every) => [...new Set(among.map((run) => run[field]))].sort((a, b) => (typeof a === "number" ? a - b : 0));
  const measured = values("device", runs);
  const devices = values("device").map((name) => [name, measured.includes(name) ? name : `${name}, floor`]);
  const usual = (field, wanted) => (values(field).includes(wanted) ? wanted : values(field)[0]);
  choice(form, "latency.device", "Device", devices, devices[0][0]);
  const offerActions = choice(form, "latency.action", "Action", values("action").map((one) => [one, one]), usual("action", "forward"));
  const offerPrecisions = choice(form, "latency.precision", "Precision", values("precision").map((one) => [one, one]), usual("precision", "bfloat16"));
  const sizes = DATA.cost.sizes.filter((size) => values("size").includes(size));
  const others = values("size").filter((size) => !sizes.includes(size));
  const offerSizes = choice(form, "latency.size", "Size", [...sizes, ...others].map((size) => [size, size]), [...sizes, ...others][0]);
  const offerBatches = choice(form, "latency.batch", "Batch", values("batch").map((one) => [one, one]), usual("batch", 1));

  return function showLatency() {
    const here = every.filter((run) => run.device === state.get("latency.device"));
    const action = offerActions(values("action", here));
    const precision = offerPrecisions(values("precision", here));
    const batch = Number(offerBatches(values("batch", here)));
    const size = offerSizes(values("size", here));
    const chosen = here.filter((run) => run.action === action && run.precision === precision && run.batch === batch && run.size === size);
    const drawn = chosen.filter((run) => run.verdict === "ok" || run.verdict === "floor");
    const isMeasured = drawn.some((run) => run.ms);
    const time = (run) => run.ms ?? run.floor_ms;
    const name = (run) => [run.model, run.mixer, run.frames ? `${run.frames} frames` : ""].filter(Boolean).join(", ");
    for (const what of ["figure", "[data-table]"]) part("latency", what).hidden = !drawn.length;

    const none = measured.length ? [] : [`No device has been measured yet; on a machine with a GPU, \`${command}\` does it. These are floors: `
      + "the least time that any implementation can take on that card."];
    say(part("latency", ".answer"), ...none, ...compared(drawn, time, isMeasured ? "time" : "floor"),
      ...(drawn.length ? [] : [`Of ${action} in ${precision} nothing is known of this device.`]));
    if (!drawn.length) return;

    const rows = drawn.flatMap((run) => {
      const about = { px: run.resolution, kind: run.kind, line: name(run), model: name(run), resolution: `${run.resolution} px`,
        binds: run.binds ?? "" };
      const lines = run.ms ? [{ ...about, part: "measured", ms: run.ms, low: run.ms - run.iqr_ms / 2, high: run.ms + run.iqr_ms / 2,
        shown: `${digits(run.ms, 3)} ms, median` }] : [];
      return run.floor_ms ? [...lines, { ...about, part: "floor", ms: run.floor_ms, shown: `${digits(run.floor_ms, 3)} ms at least` }] : lines;
    });
    // Where one kind is run in several ways, each line has the name of its way.
    const largest = Math.max(...values("px", rows));
    const ways = (run) => new Set(drawn.filter((one) => one.kind === run.kind && one.ms).map((one) => one.mixer)).size;
    rows.push(...drawn.filter((run) => run.ms && run.resolution === largest && ways(run) > 1)
      .map((run) => ({ part: "way", px: largest, ms: run.ms, kind: run.kind, label: run.mixer })));
    const wide = [Math.min(...values("px", rows)) / 1.1, Math.max(...values("px", rows)) * 1.1];
    const x = { field: "px", type: "quantitative", title: "resolution (pixels a side)", axis: { format: "d", values: values("px", rows) },
      scale: { type: "log", base: 2, domain: wide, nice: false } };
    const { scale, ticks } = logarithmic(rows.flatMap((row) => [row.ms, row.low, row.high]).filter((ms) => ms > 0));
    const y = { field: "ms", type: "quantitative", scale, title: "milliseconds", axis: { format: "~s", values: ticks } };
    const tooltip = TIP(["model", "model"], ["resolution", "resolution"], ["shown", "time"], ["binds", "what binds the floor"]);
    const of = (what) => [{ filter: `datum.part == '${what}'` }];
    const color = KINDS.colour;
    const detail = { field: "line" };
    const floorsDrawn = rows.some((row) => row.part === "floor");
    draw(part("latency", "[data-chart=lines]"), {
      height: 320, description: "Time of a step against resolution; the table below has the numbers.",
      layer: [
        ...(floorsDrawn ? [
          { transform: of("floor"), mark: { type: "line", strokeWidth: 1.5, strokeDash: [2, 3] }, encoding: { x, y, detail, color } },
          { transform: of("floor"), mark: { type: "tick", thickness: 3, size: 16, opacity: 1 }, encoding: { x, y, color, tooltip } },
        ] : []),
        ...(rows.some((row) => row.part === "way") ? [{ transform: of("way"), mark: { type: "text", align: "right", dx: -12, dy: -4, aria: false },
          encoding: { x, y, text: { field: "label" }, color } }] : []),
        ...(isMeasured ? [
          { transform: of("measured"), mark: { type: "line", strokeWidth: 2 }, encoding: { x, y, detail, color, strokeDash: KINDS.dash } },
          { transform: of("measured"), mark: { type: "rule", strokeWidth: 2, aria: false }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color } },
          { transform: of("measured"), mark: { type: "point", filled: true, size: 70, opacity: 1 }, encoding: { x, y, color, shape: KINDS.symbol, tooltip } },
        ] : []),
      ],
    }, rows);
    const notes = floorsDrawn ? [["┄ ▬: floor, the least time that any implementation can take", null]] : [];
    key(part("latency", "[data-key=lines]"), [...DATA.kinds.filter((kind) => drawn.some((run) => run.kind === kind.id)).map((kind) => [kind.words, look(kind)]), ...notes]);
    paintLooks();

    const filled = (field) => drawn.some((run) => run[field] !== undefined && run[field] !== null);
    const figures = [["ms", "median, ms"], ["iqr_ms", "middle half, ms"], ["floor_ms", "floor, ms"], ["items_per_s", "items a second"],
      ["tflop_per_s", "TFLOP/s"], ["mfu", "MFU"], ["joules_per_item", "J an item"]].filter(([field]) => filled(field));
    const columns = [
      { title: "model", value: name }, { title: "px", value: (run) => run.resolution, number: (run) => run.resolution },
      ...(isMeasured ? [{ title: "verdict", value: (run) => run.verdict, mark: (run) => (run.verdict === "ok" ? "yes" : "no") }] : []),
      ...figures.map(([field, title]) => ({ title, number: (run) => run[field] ?? undefined, value: (run) => (run[field] ? digits(run[field], 3) : "") })),
      ...(isMeasured && filled("floor_ms") ? [{ title: "times its floor", number: (run) => run.ms / run.floor_ms, value: (run) => (run.ms && run.floor_ms ? digits(run.ms / run.floor_ms, 3) : "") }] : []),
      ...(filled("binds") ? [{ title: "what binds the floor", value: (run) => run.binds ?? "" }] : []),
    ];
    const caption = `${action}, ${precision}, a batch of ${batch}, ${state.get("latency.device")}`;
    part("latency", "[data-table]").replaceChildren(table(caption, columns, chosen));
  };

  // Each model's times over its counterpart's, by resolution; of several ways of running that, the fastest.
  function compared(drawn, time, what) {
    const lines = new Map(drawn.filter((run) => run.rival).map((run) => [`${run.model}, ${run.mixer}`, run]));
    return [...lines.values()].flatMap((line) => {
      const ratios = drawn.filter((run) => run.model === line.model && run.mixer === line.mixer).flatMap((run) => {
        const beside = drawn.filter((one) => one.model === run.rival && one.resolution === run.resolution && one.frames === run.frames);
        return beside.length ? [`**${digits(time(run) / Math.min(...beside.map(time)), 3)}** at ${run.resolution} px`] : [];
      });
      return ratios.length ? [`${line.model} over ${line.rival}, ${what}: ${ratios.join(", ")}.`] : [];
    });
  }
}
