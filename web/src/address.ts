/** The address of the page holds what is shown: `#s=` the session, `b=` the branch, `c=` the checkpoint, `p=` the panel. */

export type Panel = 'graph' | 'timeline' | 'events';
export interface Place { session: string | null; branch: string | null; checkpoint: string | null; panel: Panel | null }

const PANELS = new Set<string>(['graph', 'timeline', 'events']);

export function readPlace(): Place {
  const given = new URLSearchParams(location.hash.slice(1));
  const panel = given.get('p');
  return {
    session: given.get('s'), branch: given.get('b'), checkpoint: given.get('c'),
    panel: panel && PANELS.has(panel) ? panel as Panel : null,
  };
}

/** Write the place into the address. Another session is a step to come back from; the rest is not. */
export function writePlace(place: Place): void {
  const parts = ([['s', place.session], ['b', place.branch], ['c', place.checkpoint], ['p', place.panel]] as const)
    .filter(([, value]) => value).map(([name, value]) => `${name}=${encodeURIComponent(value ?? '')}`);
  const hash = `#${parts.join('&')}`;
  if (hash === (location.hash || '#')) return;
  const address = `${location.pathname}${location.search}${hash}`;
  if (place.session === readPlace().session) history.replaceState(null, '', address);
  else history.pushState(null, '', address);
}
