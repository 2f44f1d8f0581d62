/** How the page is built: fixed names, no hashes, so that a rebuild of the same source gives the same files. */
import react from '@vitejs/plugin-react';
import { defineConfig, type Plugin } from 'vite';

/** KaTeX names each font three times over; every browser that runs this page reads woff2. */
const woff2Only: Plugin = {
  name: 'woff2-only',
  enforce: 'pre',
  transform: (code, id) =>
    /katex[^/]*\.css/.test(id) ? code.replace(/,\s*url\([^)]*\.(?:woff|ttf)\)\s*format\([^)]*\)/g, '') : null,
};

export default defineConfig({
  base: '/static/',
  plugins: [woff2Only, react()],
  build: {
    outDir: process.env.PAGE_OUT ?? '../api/static',
    emptyOutDir: true,
    assetsInlineLimit: 0, // a data: address would be turned away by the policy the page is served with
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1000,
    rolldownOptions: {
      output: {
        entryFileNames: 'assets/[name].js',
        chunkFileNames: 'assets/[name].js',
        assetFileNames: 'assets/[name][extname]',
      },
    },
  },
  server: { proxy: { '^/(?!static|src|@|node_modules).+': 'http://127.0.0.1:8123' } },
});
