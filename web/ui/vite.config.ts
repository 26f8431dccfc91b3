import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

// Stable names: the build is committed, and a changed page is a readable change of three files.
export default defineConfig({
  plugins: [svelte()],
  build: {
    modulePreload: { polyfill: false },
    rollupOptions: {
      output: {
        entryFileNames: 'assets/app.js',
        chunkFileNames: 'assets/[name].js',
        assetFileNames: 'assets/app[extname]',
      },
    },
  },
  server: { proxy: { '/api': 'http://127.0.0.1:8480', '/metrics': 'http://127.0.0.1:8480' } },
})
