// The filter language of the command line, read by the same grammar as in filters.py, which gives the columns by
// every name, their kinds and units (`grammar`). `reader` knows the rows: `text(column, test)` gives a test of a row by one of its texts,
// `figure(column, row)` a number or null. `readFilter` gives `{ test }`, a test of a row, or `{ error }`.
"use strict";

const FILTER_BLANKS = " \\t\\n\\r\\f\\v\\u00a0";
const FILTER_TOKEN = new RegExp(`[${FILTER_BLANKS}]*(?:(<=|>=|==|!=|[<>=~(),])|"([^"]*)"|'([^']*)'|([^${FILTER_BLANKS}<>=!~(),"']+))`, "y");
const FILTER_NUMBER = /^[ \t]*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,5}))?[ \t]*([a-zA-Zµ%]*)[ \t]*$/;
const FILTER_BARE = /^[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?$/;
const FILTER_SIGNS = ["<", "<=", ">", ">=", "=", "==", "!=", "~"];
const FILTER_EMPTY = Symbol("empty");

class FilterError extends Error {}

function readFilter(query, grammar, reader) {
  try {
    const parser = new FilterParser(query, grammar, reader);
    if (!parser.tokens.length) return { test: () => true };
    const test = parser.any(0);
    if (parser.place < parser.tokens.length) throw new FilterError(`unexpected '${parser.tokens[parser.place].token}'`);
    return { test };
  } catch (error) {
    if (error instanceof FilterError) return { error: error.message };
    throw error;
  }
}

// Letters are folded as the database folds them: ASCII alone.
const foldedText = (text) => text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
// Texts are ordered by code points, as the database orders their bytes; JavaScript orders UTF-16.
function comparePoints(left, right) {
  const a = [...left], b = [...right];
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i].codePointAt(0) - b[i].codePointAt(0);
  return a.length - b.length;
}
const FILTER_COMPARE = { "<": (way) => way < 0, "<=": (way) => way <= 0, ">": (way) => way > 0, ">=": (way) => way >= 0, "=": (way) => way === 0, "==": (way) => way === 0, "!=": (way) => way !== 0 };

// One pass over the tokens, one method a rule of the grammar.
class FilterParser {
  constructor(query, grammar, reader) {
    Object.assign(this, { grammar, reader, place: 0, numTests: 0, numValues: 0, tokens: [] });
    this.names = new Map([...[...grammar.texts, ...Object.keys(grammar.kinds)].map((name) => [name, name]), ...Object.entries(grammar.names)]);
    this.kinds = new Map(Object.entries(grammar.kinds));
    this.units = new Set(Object.values(grammar.units).flatMap(({ units }) => Object.keys(units)).filter(Boolean).map((unit) => unit.toLowerCase()));
    const blank = new RegExp(`^[${FILTER_BLANKS}]*$`);
    for (let at = 0; !blank.test(query.slice(at)); at = FILTER_TOKEN.lastIndex) {
      FILTER_TOKEN.lastIndex = at;
      const match = FILTER_TOKEN.exec(query);
      if (!match) throw new FilterError(`cannot read '${query.slice(at).trim().slice(0, 20)}'`);
      const [, symbol, double, single, word] = match;
      this.tokens.push({ kind: symbol ? "symbol" : word ? "word" : "text", token: symbol ?? word ?? double ?? single });
    }
  }

  is(kind, ...wanted) {
    const next = this.tokens[this.place];
    return next !== undefined && next.kind === kind && wanted.includes(next.token.toLowerCase());
  }

  // Step over the next token if it is one of these words or symbols.
  take(...wanted) {
    if (!this.is("symbol", ...wanted) && !this.is("word", ...wanted)) return null;
    return this.tokens[this.place++].token.toLowerCase();
  }

  any(depth) {
    const parts = [this.all(depth)];
    while (this.take("or")) parts.push(this.all(depth));
    return parts.length === 1 ? parts[0] : (i) => parts.some((one) => one(i));
  }

  all(depth) {
    const parts = [this.one(depth)];
    const goesOn = () => this.place < this.tokens.length && !this.is("word", "or") && !this.is("symbol", ")", ",");
    while (this.take("and") || goesOn()) parts.push(this.one(depth));
    return parts.length === 1 ? parts[0] : (i) => parts.every((one) => one(i));
  }

  one(depth) {
    if (depth > this.grammar.most.depth) throw new FilterError(`nested more than ${this.grammar.most.depth} deep`);
    if (this.take("not")) {
      const inner = this.one(depth + 1);
      return (i) => !inner(i);
    }
    if (this.take("(")) {
      const inner = this.any(depth + 1);
      if (!this.take(")")) throw new FilterError("a ')' is missing");
      return inner;
    }
    return this.beginsTest() ? this.test() : this.search();
  }

  // A column is known by what follows it.
  beginsTest() {
    if (this.place >= this.tokens.length) throw new FilterError("a column is missing at the end");
    const next = this.tokens[this.place + 1];
    if (!next || this.tokens[this.place].kind === "symbol") return false;
    return (next.kind === "symbol" && FILTER_SIGNS.includes(next.token)) || (next.kind === "word" && next.token.toLowerCase() === "in");
  }

  search() {
    const { kind, token } = this.tokens[this.place];
    if (kind === "symbol") throw new FilterError(`unexpected '${token}'`);
    if (kind === "word" && this.names.has(token)) throw new FilterError(`after ${token} write one of < <= > >= = != ~ in, or quote it to search for it`);
    if (this.is("word", "and", "or", "in")) throw new FilterError(`a column or a text is missing before '${token}'`);
    this.place++;
    this.count();
    const needle = foldedText(token);
    const parts = this.grammar.searched.map((column) => this.reader.text(column, (text) => foldedText(text).includes(needle)));
    return (i) => parts.some((one) => one(i));
  }

  test() {
    const name = this.tokens[this.place].token;
    if (!this.names.has(name)) throw new FilterError(`no column '${name}'`);
    const column = this.names.get(name);
    this.place++;
    this.count();
    if (this.take("in")) {
      if (!this.take("(")) throw new FilterError("write `in (a, b)`");
      const values = [this.value(column)];
      while (this.take(",")) values.push(this.value(column));
      if (!this.take(")")) throw new FilterError("a ')' is missing");
      return this.oneOf(column, values);
    }
    const sign = this.take(...FILTER_SIGNS);
    const isList = this.grammar.lists.includes(column);
    if (isList && ["<", "<=", ">", ">="].includes(sign)) throw new FilterError(`${column} is a list: write = != ~ or in, not ${sign}`);
    const value = this.value(column);
    if (sign === "~" && (this.kinds.has(column) || value === FILTER_EMPTY)) throw new FilterError(`~ (contains) takes a text column and a text, not ${column}`);
    if (value === FILTER_EMPTY) {
      if (!["=", "==", "!="].includes(sign)) throw new FilterError(`empty can be = or !=, not ${sign}`);
      const empty = this.empty(column);
      return sign === "!=" ? (i) => !empty(i) : empty;
    }
    if (this.kinds.has(column)) return (i) => { const found = this.reader.figure(column, i); return found !== null && FILTER_COMPARE[sign](found < value ? -1 : found > value ? 1 : 0); };
    if (isList && sign !== "~") return this.reader.text(column, (text) => text.split(" ").includes(value) === (sign !== "!="));
    const needle = foldedText(value);
    return this.reader.text(column, sign === "~" ? (text) => foldedText(text).includes(needle) : (text) => FILTER_COMPARE[sign](comparePoints(text, value)));
  }

  oneOf(column, values) {
    const wanted = new Set(values), empty = this.empty(column);
    const isWanted = this.grammar.lists.includes(column) ? (text) => text.split(" ").some((one) => wanted.has(one)) : (text) => wanted.has(text);
    const found = this.kinds.has(column) ? (i) => wanted.has(this.reader.figure(column, i)) : this.reader.text(column, isWanted);
    return wanted.has(FILTER_EMPTY) ? (i) => found(i) || empty(i) : found;
  }

  empty(column) {
    return this.kinds.has(column) ? (i) => this.reader.figure(column, i) === null : this.reader.text(column, (text) => text === "");
  }

  value(column) {
    const next = this.tokens[this.place];
    if (!next || next.kind === "symbol") throw new FilterError(`a value for ${column} is missing`);
    this.place++;
    if (++this.numValues > this.grammar.most.values) throw new FilterError(`more than ${this.grammar.most.values} values: filter what is exported instead`);
    if (next.kind === "word" && next.token.toLowerCase() === "empty") return FILTER_EMPTY;
    if (!this.kinds.has(column)) return next.token;
    let token = next.token;
    if (next.kind === "word" && FILTER_BARE.test(token) && this.is("word", ...this.units)) token += this.tokens[this.place++].token; // `5 ms`
    return this.amount(column, token);
  }

  amount(column, token) {
    const { what, units } = this.grammar.units[this.kinds.get(column)];
    const found = FILTER_NUMBER.exec(token);
    if (!found) throw new FilterError(`${column}: '${token}' is not ${what}`);
    const [, digits, exponent = 0, unit] = found;
    if (unit && !Object.hasOwn(units, unit)) throw new FilterError(`${column}: '${token}' is not ${what} (units: ${Object.keys(units).filter(Boolean).join(" ") || "none"})`);
    const factor = unit ? units[unit] : 1, power = Math.round(Math.log10(factor));
    // By a power of ten exactly, so that 95% is .95 and 1.1M is 1100000.
    if (Number(`1e${power}`) === factor) return Number(`${digits}e${Number(exponent) + power}`);
    return Number(`${digits}e${exponent}`) * factor;
  }

  count() {
    if (++this.numTests > this.grammar.most.tests) throw new FilterError(`more than ${this.grammar.most.tests} tests: write \`column in (a, b, ...)\` for many values`);
  }
}
