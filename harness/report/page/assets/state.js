// What the reader has chosen. It lives in the address behind the section: #cost?cost.size=B&quality.metric=is
// Only what differs from the usual is written, so that a plain address is the plain page.

const DATA = JSON.parse(document.getElementById("data").textContent);

// Rows that harness.report.page.packing has packed, as objects.
function unpacked({ columns, texts, rows }) {
  const value = (row, name, i) => (name in texts && row[i] !== null ? texts[name][row[i]] : row[i]);
  return rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, value(row, name, i)])));
}

const RECORDS = unpacked(DATA.origins.records);
const placeOf = ({ file, line }) => `${file.split("/").pop()}:${line}`;

const state = {
  usual: {},
  chosen: {},
  section: "",

  declare(name, usual) { this.usual[name] = String(usual); },
  get(name) { return this.chosen[name] ?? this.usual[name]; },
  list(name) { return this.get(name).split(",").filter(Boolean); },

  set(name, value) {
    value = String(value);
    if (value === this.usual[name]) delete this.chosen[name]; else this.chosen[name] = value;
    this.section = name.split(".")[0];
    this.write();
  },

  // Takes over what an address states; one that names a section alone keeps what was chosen.
  read() {
    const [section, query] = decodeURI(location.hash.slice(1)).split("?");
    this.section = section;
    if (query !== undefined) {
      const stated = [...new URLSearchParams(query)].filter(([name]) => name in this.usual);
      this.chosen = Object.fromEntries(stated);
    }
  },

  write() {
    const query = new URLSearchParams(this.chosen).toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
    history.replaceState(null, "", `#${this.section}${query && "?" + query}`);
  },
};
