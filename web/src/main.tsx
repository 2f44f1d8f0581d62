/** The page begins here. */
import { createRoot } from 'react-dom/client';
import { App } from './ui/App';
import { applyPrefs } from './prefs';
import './styles/base.css';
import './styles/chat.css';
import './styles/panels.css';

applyPrefs();
createRoot(document.getElementById('root') as HTMLElement).render(<App />);
