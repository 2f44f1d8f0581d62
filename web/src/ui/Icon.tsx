/** Line icons, drawn here so that no font and no file is fetched. */
import type { ReactElement } from 'react';

const PATHS = {
  plus: 'M12 5v14M5 12h14', close: 'M6 6l12 12M18 6L6 18', menu: 'M4 7h16M4 12h16M4 17h16', up: 'M12 19V5M6 11l6-6 6 6', down: 'M12 5v14M6 13l6 6 6-6',
  stop: 'M7 7h10v10H7z', copy: 'M9 9h10v10H9zM5 15V5h10', check: 'M5 13l4 4L19 7', history: 'M4 12a8 8 0 108-8 8 8 0 00-7 4M4 4v4h4M12 8v4l3 2',
  again: 'M20 12a8 8 0 11-2.5-5.8M20 4v5h-5', edit: 'M4 20h4L19 9l-4-4L4 16zM13 7l4 4', trash: 'M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13', left: 'M14 6l-6 6 6 6', right: 'M10 6l6 6-6 6',
  search: 'M11 4a7 7 0 110 14 7 7 0 010-14zM16 16l4 4', graph: 'M5 4h6v5H5zM13 15h6v5h-6zM8 9v8h5', events: 'M4 6h10M4 12h16M4 18h7', inbox: 'M4 13l3-8h10l3 8v6H4zM4 13h5l1 2h4l1-2h5',
  settings: 'M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4', keyboard: 'M3 7h18v10H3zM7 11h.01M11 11h.01M15 11h.01M8 14h8', sun: 'M12 8a4 4 0 110 8 4 4 0 010-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5M17.5 17.5L19 19M5 19l1.5-1.5M17.5 6.5L19 5',
  moon: 'M20 14A8 8 0 1110 4a7 7 0 0010 10z', screen: 'M3 5h18v12H3zM9 21h6', film: 'M4 5h16v14H4zM10 9l5 3-5 3z', pause: 'M8 6v12M16 6v12', play: 'M8 5l11 7-11 7z', fork: 'M7 4v16M7 14c0-4 10-3 10-8M17 6V4',
  pin: 'M9 4h6l-1 6 3 3H7l3-3zM12 13v7', download: 'M12 4v11M7 11l5 5 5-5M5 20h14', more: 'M5 12h.01M12 12h.01M19 12h.01', warn: 'M12 4l9 16H3zM12 10v4M12 17h.01', wait: 'M12 4a8 8 0 110 16 8 8 0 010-16zM12 8v4l3 2',
  calculator: 'M6 3h12v18H6zM9 7h6M9 12h.01M12 12h.01M15 12h.01M9 16h.01M12 16h.01M15 16h.01', weather: 'M7 18h10a4 4 0 000-8 6 6 0 00-11 2 3 3 0 001 6z', chat: 'M4 5h16v11H9l-5 4z', tool: 'M14 6a4 4 0 015 5l-9 9-3-3 9-9M5 8l3-3',
  spark: 'M12 3v4M12 17v4M3 12h4M17 12h4M6 6l2.5 2.5M15.5 15.5L18 18M6 18l2.5-2.5M15.5 8.5L18 6', compare: 'M4 5h7v14H4zM13 5h7v14h-7z', fit: 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5', list: 'M9 6h11M9 12h11M9 18h11M5 6h.01M5 12h.01M5 18h.01', globe: 'M12 3a9 9 0 110 18 9 9 0 010-18zM3 12h18M12 3c3 3 3 15 0 18M12 3c-3 3-3 15 0 18',
} as const;

export type IconName = keyof typeof PATHS;

export const Icon = ({ name }: { name: IconName }): ReactElement => (
  <svg className="icon" viewBox="0 0 24 24" aria-hidden="true"><path d={PATHS[name]} /></svg>
);

interface ButtonProps { icon: IconName; label: string; onClick: () => void; disabled?: boolean; className?: string; pressed?: boolean; expanded?: boolean; id?: string; controls?: string }

export const IconButton = ({ icon, label, onClick, disabled = false, className = '', pressed, expanded, id, controls }: ButtonProps): ReactElement => (
  <button type="button" id={id} className={`icon-button ${className}`} aria-label={label} title={label} onClick={onClick} disabled={disabled}
    aria-pressed={pressed} aria-expanded={expanded} aria-controls={controls}>
    <Icon name={icon} />
  </button>
);
