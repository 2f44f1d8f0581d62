/** A value that React components watch from outside of React. */
import { useSyncExternalStore } from 'react';

export class External<T> {
  #value: T;
  readonly #watchers = new Set<() => void>();

  constructor(value: T) {
    this.#value = value;
  }

  get = (): T => this.#value;

  set(value: T): void {
    this.#value = value;
    for (const watcher of this.#watchers) watcher();
  }

  change(part: Partial<T>): void {
    this.set({ ...this.#value, ...part });
  }

  watch = (watcher: () => void): (() => void) => {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  };
}

export const useExternal = <T,>(external: External<T>): T => useSyncExternalStore(external.watch, external.get);
