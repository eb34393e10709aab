import eslint from '@eslint/js';
import nx from '@nx/eslint-plugin';
import prettier from 'eslint-config-prettier';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

/** Who may import whom (docs/architecture.md): arrows only point down this table. */
const mayImport = {
  nn: [],
  'backend-native': ['nn'],
  'backend-webgpu': ['nn'],
  weights: [],
  'vision-encoder': ['nn'],
  qformer: ['nn'],
  'opt-decoder': ['nn'],
  't5-language-model': ['nn'],
  'peft-lora': ['nn', 'weights'],
  blip2: ['nn', 'weights', 'vision-encoder', 'qformer', 'opt-decoder', 't5-language-model'],
  retrieval: ['nn', 'weights', 'vision-encoder', 'qformer', 'blip2', 'data-captions'],
  captioner: ['nn', 'weights', 'qformer', 'peft-lora', 'blip2', 'data-captions'],
  serve: ['captioner'],
  'data-captions': [],
  'caption-metrics': [],
  trainer: ['nn', 'weights', 'peft-lora', 'blip2', 'retrieval', 'data-captions', 'caption-metrics'],
  distributed: ['nn', 'trainer'],
  studio: ['weights', 'captioner', 'data-captions', 'trainer'],
  cli: [
    'nn',
    'weights',
    'peft-lora',
    'blip2',
    'retrieval',
    'data-captions',
    'caption-metrics',
    'trainer',
    'distributed',
    'captioner',
    'serve',
    'studio',
  ],
  browser: ['nn', 'backend-webgpu', 'weights', 'peft-lora', 'blip2', 'data-captions', 'trainer'],
  golden: ['nn', 'weights'],
  parity: ['nn', 'weights', 'peft-lora', 'blip2', 'data-captions', 'trainer'],
  'emoji-captions': [],
  'emoji-base': ['nn', 'weights', 'opt-decoder', 'blip2', 'data-captions', 'trainer', 'emoji-captions'],
  bench: ['nn', 'backend-webgpu', 'weights', 'peft-lora', 'blip2', 'data-captions', 'trainer', 'captioner'],
  study: ['trainer', 'backend-native', 'bench', 'emoji-captions'],
  repository: ['bench', 'parity'],
  docs: ['trainer', 'cli'],
  consumer: ['*'],
};
/** What test suites may import on top. */
const inSpecs = {
  'vision-encoder': ['golden'],
  qformer: ['golden'],
  'opt-decoder': ['golden'],
  't5-language-model': ['golden'],
  blip2: ['peft-lora'],
  retrieval: ['golden'],
};

/** Makes programs of specs that start processes. */
const BUNDLE = '../../../tsup.config';
/** A Vulkan driver that computes on the processor. */
const VULKAN = ['../../backend-webgpu/spec/software', '../../../packages/backend-webgpu/spec/software'];
/** Starts programs of specs on several ranks. */
const MPIRUN = '../../distributed/spec/launch';
/** Pages and programs in a browser, for specs of any package. */
const BROWSER = [
  '../../trainer/spec/browser',
  '../../../packages/trainer/spec/browser',
  '../../blip2/spec/bundle',
  '../../../packages/blip2/spec/bundle',
];

const boundaries = (extra, allow = []) => ({
  '@nx/enforce-module-boundaries': [
    'error',
    {
      allow,
      enforceBuildableLibDependency: false,
      depConstraints: Object.entries(mayImport).map(([name, allowed]) => ({
        sourceTag: `scope:${name}`,
        onlyDependOnLibsWithTags: [...allowed, ...(extra[name] ?? [])].map((other) =>
          other === '*' ? other : `scope:${other}`,
        ),
      })),
    },
  ],
});

export default defineConfig(
  { ignores: ['**/dist', 'examples/*/public', '**/build', '**/node_modules', '**/.nx', '**/runs'] },
  eslint.configs.recommended,
  ...tseslint.configs.recommended,
  prettier,
  // An error's message holds what its reader can use of the cause: users see the message only.
  { rules: { 'preserve-caught-error': 'off' } },
  {
    files: ['**/*.ts', '**/*.tsx'],
    plugins: { '@nx': nx },
    rules: {
      ...boundaries({}),
      '@typescript-eslint/consistent-type-imports': 'error',
      'no-restricted-syntax': [
        'error',
        {
          selector: 'ImportDeclaration[importKind="value"] > ImportSpecifier[importKind="type"]',
          message: 'Import types by a line of their own: import type { … }.',
        },
      ],
    },
  },
  {
    files: ['**/*.spec.ts', '**/spec/**'],
    rules: boundaries(inSpecs, [BUNDLE, ...VULKAN, MPIRUN, ...BROWSER]),
  },
  // They import the package as people's own files do.
  { files: ['packages/serve/examples/*.ts'], rules: { '@nx/enforce-module-boundaries': 'off' } },
  {
    // they are compiled, never run: a value's type is all that is used of it
    files: ['tools/consumer/src/*.ts'],
    rules: {
      '@typescript-eslint/consistent-type-imports': 'off',
      '@typescript-eslint/no-unused-vars': 'off',
    },
  },
  {
    files: ['**/*.mjs', '**/*.js'],
    languageOptions: { globals: { process: 'readonly', console: 'readonly', URL: 'readonly' } },
  },
  // A script of browsers; `npm run typecheck` finds undefined names.
  { files: ['packages/trainer/page/*.js'], rules: { 'no-undef': 'off' } },
);
