/** Scrolling that follows what is written, and yields to the reader who scrolls up. */

const NEAR = 48;

/**
 * @param {HTMLElement} scroller
 * @param {HTMLElement} content
 * @param {HTMLButtonElement} jump shown while the end is out of sight
 */
export function follow(scroller, content, jump) {
  let stuck = true;
  let last = 0;
  const gap = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
  const show = () => { jump.hidden = stuck || gap() <= NEAR; };

  function toEnd() {
    stuck = true;
    scroller.scrollTop = scroller.scrollHeight;
    last = scroller.scrollTop;
    show();
  }

  scroller.addEventListener('scroll', () => {
    const up = scroller.scrollTop < last;
    last = scroller.scrollTop;
    if (gap() <= NEAR) stuck = true;
    else if (up) stuck = false;
    show();
  }, { passive: true });

  const observer = new ResizeObserver(() => (stuck ? toEnd() : show()));
  observer.observe(content);
  observer.observe(scroller);
  jump.addEventListener('click', toEnd);
  return { toEnd };
}
