// What a program can see of WCAG 2.2 AA: returns a sentence for each fault.
() => {
  const faults = [];
  const name = (e) => `${e.localName}${e.className?.baseVal ?? (e.className ? "." + e.className : "")}`
    + ` "${(e.textContent || e.value || "").trim().slice(0, 40)}"`;
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest(".unseen, .skip");

  // 1.4.10 Reflow
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) faults.push(`the page is ${scrollWidth} wide, of ${clientWidth}`);

  // 1.4.3 Contrast
  const parse = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92
      : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !seen(e) || ["script", "title"].includes(e.localName)) continue;
    const style = getComputedStyle(e);
    const large = parseFloat(style.fontSize) >= 24
      || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    const colour = parse(e.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const ratio = contrast(colour, ground(e));
    if (ratio < (large ? 3 : 4.5)) faults.push(`contrast ${ratio.toFixed(2)}: ${name(e)}`);
  }

  // 2.5.8 Target size, 1.3.1 and 4.1.2 names
  for (const e of document.querySelectorAll("button, select, input:not([type=hidden]):not([hidden]), a.button")) {
    if (!seen(e)) continue;
    const box = e.getBoundingClientRect();
    const [width, height] = [box.width, box.height];
    if (width < 24 || height < 24) faults.push(`${width} by ${height}: ${name(e)}`);
    const called = e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent;
    if (!called?.trim()) faults.push(`no name: ${name(e)}`);
  }
  for (const e of document.querySelectorAll("svg[role=img]")) {
    if (!e.getAttribute("aria-label")) faults.push(`no name: ${name(e)}`);
  }
  for (const e of document.querySelectorAll("th")) if (!e.scope) faults.push(`no scope: ${name(e)}`);

  // 1.3.1 Headings, 2.4.2 title, 3.1.1 language, 4.1.1 IDs
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((e) => Number(e.localName[1]));
  if (levels[0] !== 1 || levels.filter((level) => level === 1).length !== 1) faults.push(`headings ${levels}`);
  levels.forEach((level, at) => { if (at && level > levels[at - 1] + 1) faults.push(`headings ${levels}`); });
  if (!document.title || !document.documentElement.lang) faults.push("no title or language");
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) faults.push(`an ID twice: ${ids}`);
  for (const e of document.querySelectorAll("[aria-labelledby], [aria-describedby]")) {
    const of = e.getAttribute("aria-labelledby") || e.getAttribute("aria-describedby");
    if (!document.getElementById(of)) faults.push(`no such ID: ${of}`);
  }

  // 2.3.3 Animation, when people asked for less of it
  if (document.getAnimations().length) faults.push("something moves");
  return faults;
}
