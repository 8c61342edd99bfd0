"use strict";

/** Call `make` with an element when it first comes into view. */
function onceSeen(element, make) {
  new IntersectionObserver((entries, observer) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      observer.disconnect();
      make(element);
    }
  }, { rootMargin: "200px" }).observe(element);
}

/** Return a colour of the page, such as "--ink", in the scheme that is on. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Return text for plotly, whose labels would read what looks like HTML. */
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
