// Numbers as the commands print them (harness.core.formats): two decimals from ten on, three below, two digits of the
// very small.

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= 10) return value.toFixed(2);
  return size >= 0.01 ? value.toFixed(3) : String(Number(value.toPrecision(2)));
}

const billions = (amount) => cell(amount / 1e9);
const gib = (bytes) => (bytes / 2 ** 30).toFixed(2);
const ratio = (one, other) => (one / other).toFixed(3);
const digits = (value, count = 4) => String(Number(value.toPrecision(count)));
const grouped = (value) => value.toLocaleString("en-US");
