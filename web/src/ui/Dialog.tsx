/** A modal dialog on the browser's own element: focus stays in it, Escape closes it. */
import { useEffect, useId, useRef, type ReactElement, type ReactNode } from 'react';
import { t, useLanguage } from '../i18n';
import { IconButton } from './Icon';

interface Props { title: string; onClose: () => void; children: ReactNode; className?: string; plain?: boolean }

export function Dialog({ title, onClose, children, className = '', plain = false }: Props): ReactElement {
  useLanguage();
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = element.current;
    const back = document.activeElement as HTMLElement | null;
    dialog?.showModal();
    return () => { dialog?.close(); back?.focus?.(); };
  }, []);
  return (
    // Escape is the keyboard's way to do what a click beside the dialog does.
    // oxlint-disable-next-line jsx-a11y/click-events-have-key-events, jsx-a11y/no-noninteractive-element-interactions
    <dialog ref={element} className={`dialog ${className}`} aria-labelledby={id} onCancel={(event) => { event.preventDefault(); onClose(); }}
      onClick={(event) => { if (event.target === element.current) onClose(); }}>
      <div className="dialog-box">
        <header className="dialog-head">
          <h2 id={id}>{title}</h2>
          {!plain && <IconButton icon="close" label={t('page.close')} onClick={onClose} />}
        </header>
        {children}
      </div>
    </dialog>
  );
}
