// Where does each number come from: all records, those that hold every word that is looked for.

function originsSection() {
  const { files, records: { columns } } = DATA.origins;
  const form = part("origins", ".controls");
  const more = part("origins", ".more");
  const AT_ONCE = 25;
  let count = AT_ONCE;
  const words = RECORDS.map((record) => [...Object.values(record), placeOf(record)].join(" ").toLowerCase());
  search(form, "origins.find", "Records that hold these words: a model, a metric, a file and line, a commit, a hash");
  choice(form, "origins.file", "File", [["all", "all"], ...files.map((file) => [file.name, file.name.split("/").pop()])], "all");
  more.addEventListener("click", () => { count += 4 * AT_ONCE; showOrigins(); });
  part("origins", "[data-files]").append(table("Files of records, and the digest of each", [
    { title: "file", value: (file) => file.name }, { title: "records", value: (file) => grouped(file.records), number: (file) => file.records },
    { title: "sha256", node: (file) => el("code", {}, file.sha256), text: true },
  ], files));
  let before = "";

  function showOrigins() {
    const wanted = state.get("origins.find").toLowerCase().split(/\s+/).filter(Boolean);
    const file = state.get("origins.file");
    if (before !== wanted + file) count = AT_ONCE;
    before = wanted + file;
    // `file:line` is one record: digits.jsonl:1 is not digits.jsonl:12
    const holds = (at, word) => (/:\d+$/.test(word) ? placeOf(RECORDS[at]).toLowerCase() === word : words[at].includes(word));
    const found = RECORDS.filter((record, at) => (file === "all" || record.file === file) && wanted.every((word) => holds(at, word)));
    say(part("origins", ".answer"), `**${grouped(found.length)}** of ${grouped(RECORDS.length)} records.`);
    more.hidden = found.length <= count;
    const prose = ["of", "method", "command", "hash"];
    const shown = [{ title: "record", value: placeOf }, ...columns.slice(2).map((name) => ({
      title: name, text: prose.includes(name), value: (record) => (name === "value" ? figure(record.value) : record[name] ?? ""),
      number: name === "value" ? (record) => record.value ?? undefined : undefined,
      node: name === "command" ? (record) => folded(record.command, 40) : undefined,
    }))];
    part("origins", "[data-table]").replaceChildren(table("Records, and where each comes from", shown, found.slice(0, count)));
  }
  const figure = (value) => (value === null ? "" : Number.isInteger(value) ? grouped(value) : digits(value, 6));
  return showOrigins;
}
