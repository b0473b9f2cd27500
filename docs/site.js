// What the theme leaves out for keyboards and screen readers: buttons beside code have names, wide tables scroll by arrow keys.
const complete = () => {
  document.querySelectorAll(".md-code__nav:not([aria-label])").forEach((nav) => {
    const all = [...document.querySelectorAll(".md-typeset pre")];
    nav.setAttribute("aria-label", `Code ${all.indexOf(nav.closest("pre")) + 1}`);
  });
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex]), .md-typeset pre > code:not([tabindex])").forEach((part) => {
    part.tabIndex = 0;
  });
};
new MutationObserver(complete).observe(document.body, { childList: true, subtree: true });
complete();
