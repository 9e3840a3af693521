import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist/", "build/", "scripts/", "eslint.config.js"] },
  ...tseslint.configs.strictTypeChecked,
  { languageOptions: { parserOptions: { projectService: true } } },
  {
    rules: {
      // Messages may contain numbers.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      // `return this.#onClose(...)` calls and returns in one line.
      "@typescript-eslint/no-confusing-void-expression": "off",
    },
  },
  {
    files: ["types/**"],
    rules: {
      // These files contain wrong uses on purpose.
      "@typescript-eslint/no-unused-expressions": "off",
      "@typescript-eslint/no-unsafe-return": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-meaningless-void-operator": "off",
    },
  },
  {
    files: ["test/**"],
    rules: {
      // `test(...)` returns a promise that the test runner awaits.
      "@typescript-eslint/no-floating-promises": ["error", { allowForKnownSafeCalls: [{ from: "package", package: "node:test", name: ["test", "describe", "it"] }] }],
    },
  },
);
