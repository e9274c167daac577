// The filter: `wrong and rounds > 2 and category = medium`. It is parsed here by hand. No text is ever run as a script.

class FilterError extends Error {}

// What a filter can ask for, by name. A column of several values is right if one of them is.
const FIELDS = {
  index: { number: true, of: (row) => row.index },
  rounds: { number: true, of: (row) => row.rounds },
  tokens: { number: true, of: (row) => row.tokens },
  seconds: { number: true, of: (row) => row.seconds },
  category: { of: (row) => row.categories },
  answer: { of: (row) => row.answer.trim() },
  truth: { of: (row) => row.truth.trim() },
  question: { of: (row) => row.question },
  video: { of: (row) => [row.video, baseName(row.video)] },
  stop: { of: (row) => row.stop },
  status: { of: (row) => row.status },
  run: { of: (row) => row.run.key },
  ...(settings.against ? { change: { of: (row) => row.change } } : {}),
};
const WORDS = Object.fromEntries(STATUSES.map((status) => [status, (row) => row.status === status]));
if (settings.against) WORDS.flips = (row) => changesOf(row).includes("flips");

const NUMBER_TESTS = {
  "=": (a, b) => a === b, "!=": (a, b) => a !== b, "<": (a, b) => a < b, ">": (a, b) => a > b,
  "<=": (a, b) => a <= b, ">=": (a, b) => a >= b,
};
const TOKEN = /\s*(?:([()])|(<=|>=|!=|=|<|>|~)|"([^"]*)"|([^\s()<>=!~"]+))/y;

function tokensOf(text) {
  const tokens = [];
  TOKEN.lastIndex = 0;
  while (text.slice(TOKEN.lastIndex).trim()) {
    const start = TOKEN.lastIndex;
    const [, bracket, sign, quoted, word] = TOKEN.exec(text) || [];
    if (bracket || sign) tokens.push({ sign: bracket || sign });
    else if (quoted !== undefined) tokens.push({ value: quoted });
    else if (word !== undefined) tokens.push({ value: word, word: word.toLowerCase() });
    else throw new FilterError(`“${text.slice(start).trim().slice(0, 20)}” cannot be read`);
  }
  return tokens;
}

// Returns whether a row is meant; null for an empty text. Raises FilterError.
function parseFilter(text) {
  const tokens = tokensOf(text);
  let at = 0;
  const take = (what) => {
    const found = tokens[at] && (tokens[at].sign === what || tokens[at].word === what);
    if (found) at++;
    return found;
  };
  const either = () => {
    const parts = [both()];
    while (take("or")) parts.push(both());
    return (row) => parts.some((part) => part(row));
  };
  const both = () => {
    const parts = [one()];
    while (take("and")) parts.push(one());
    return (row) => parts.every((part) => part(row));
  };
  const one = () => {
    if (take("not")) {
      const part = one();
      return (row) => !part(row);
    }
    if (!take("(")) return comparison();
    const part = either();
    if (!take(")")) throw new FilterError("a bracket is not closed");
    return part;
  };
  const comparison = () => {
    const token = tokens[at++];
    if (!token) throw new FilterError("it ends too early");
    if (Object.hasOwn(WORDS, token.word)) return WORDS[token.word];
    if (!Object.hasOwn(FIELDS, token.word)) {
      const known = [...Object.keys(WORDS), ...Object.keys(FIELDS)].join(", ");
      throw new FilterError(`“${(token.sign || token.value).slice(0, 40)}” is none of ${known}`);
    }
    const sign = (tokens[at] || {}).sign;
    const value = (tokens[at + 1] || {}).value;
    if (!sign || "()".includes(sign) || value === undefined) {
      throw new FilterError(`after ${token.word} must come a sign and a value, as in ${token.word} = 3`);
    }
    at += 2;
    return FIELDS[token.word].number ? numberTest(token.word, sign, value) : textTest(token.word, sign, value);
  };
  if (!tokens.length) return null;
  const meant = either();
  if (at < tokens.length) throw new FilterError(`“${tokens[at].sign || tokens[at].value}” needs “and” or “or” before it`);
  return meant;
}

// A missing number is like no number.
function numberTest(name, sign, text) {
  const value = Number(text);
  if (!text.trim() || Number.isNaN(value)) throw new FilterError(`${name} is a number, and “${text}” is not`);
  if (!NUMBER_TESTS[sign]) throw new FilterError(`${name} is a number: ask with =, !=, <, <=, > or >=`);
  const { of } = FIELDS[name];
  return (row) => of(row) !== null && NUMBER_TESTS[sign](of(row), value);
}

function textTest(name, sign, text) {
  const value = text.toLowerCase();
  const values = (row) => [FIELDS[name].of(row)].flat().map((one) => one.toLowerCase());
  if (sign === "=") return (row) => values(row).includes(value);
  if (sign === "!=") return (row) => !values(row).includes(value);
  if (sign === "~") return (row) => values(row).some((one) => one.includes(value));
  throw new FilterError(`${name} is a text: ask with =, != or ~ (contains)`);
}
