/* A small part of Markdown: **bold**, *italic* or _italic_, `code`, ``` code blocks ```, [links](https://...)
 * and addresses as they are.
 *
 * What others wrote is never handed to the browser's HTML parser.  It is cut into pieces here, and the
 * pieces become elements and text nodes one by one, so markup in a message has no way to be more than text.
 */

const DEEPEST = 3; // bold in italic in bold; deeper stays text

const BLOCK = /```(?:[\w+-]*\n)?([\s\S]+?)```/;

// In this order: what stands first wins where several could begin.
const INLINE = new RegExp(
  [
    "`(?<code>[^`\\n]+)`",
    "\\*\\*(?=\\S)(?<bold>[^\\n]*?[^\\s*])\\*\\*",
    "\\*(?=[^\\s*])(?<star>[^*\\n]*[^\\s*])\\*",
    "(?<![\\p{L}\\p{N}_])_(?=[^\\s_])(?<line>[^_\\n]*[^\\s_])_(?![\\p{L}\\p{N}_])",
    "\\[(?<label>[^\\[\\]\\n]+)\\]\\((?<target>https?://[^\\s()<>]+)\\)",
    "(?<address>https?://[^\\s<>\"'`]+)",
  ].join("|"),
  "u",
);

/** The message `text` as a fragment for the page. */
export function markdown(text) {
  const made = document.createDocumentFragment();
  const parts = text.split(BLOCK); // text, code, text, code, ..., text
  parts.forEach((part, at) => {
    if (at % 2) {
      const block = document.createElement("pre");
      block.append(element("code", part.replace(/\n$/, "")));
      made.append(block);
    } else if (part.trim()) {
      const paragraph = document.createElement("p");
      // A new line is a new line; the newlines around a block belong to it.
      inline(paragraph, part.replace(/^\n+|\n+$/g, ""), 0);
      made.append(paragraph);
    }
  });
  return made;
}

function inline(parent, text, depth) {
  while (text) {
    const found = depth < DEEPEST ? INLINE.exec(text) : null;
    if (!found) break;
    parent.append(text.slice(0, found.index));
    const { code, bold, star, line, label, target, address } = found.groups;
    let taken = found[0];
    if (code !== undefined) parent.append(element("code", code));
    else if (bold !== undefined) inline(parent.appendChild(element("strong")), bold, depth + 1);
    else if (target !== undefined) parent.append(link(target, label) ?? taken);
    else if (address !== undefined) {
      taken = trimmed(address);
      parent.append(link(taken, taken) ?? taken);
    } else inline(parent.appendChild(element("em")), star ?? line, depth + 1);
    text = text.slice(found.index + taken.length);
  }
  parent.append(text);
}

/* A link to another site: only http and https, and the other page learns nothing of this one. */
function link(target, label) {
  let url;
  try {
    url = new URL(target);
  } catch {
    return null;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return null;
  const made = element("a", label);
  made.href = url.href;
  made.target = "_blank";
  made.rel = "noopener noreferrer nofollow";
  if (label !== target) made.title = url.href; // a label may lie about where it leads
  return made;
}

/* An address in a sentence ends before the sentence's own marks. */
function trimmed(address) {
  let kept = address.replace(/[.,;:!?*_]+$/, "");
  while (kept.endsWith(")") && kept.split(")").length > kept.split("(").length) kept = kept.slice(0, -1);
  return kept;
}

function element(tag, text = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
