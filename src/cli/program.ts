/** All commands with their options. Each action loads what it needs, so that a small command starts fast. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { AdminClient } from '../admin/client.ts';
import type { Config } from '../config/schema.ts';
import type { CriClient } from './cri-client.ts';
import type { ExplainOptions } from './explain-size.ts';
import type { ImageBuildOptions } from './image-build.ts';
import type { ImagePublishOptions } from './image-publish.ts';
import { type Io, line } from './io.ts';

interface ConfigOption {
  readonly config?: string;
}
interface JsonOption {
  readonly json: boolean;
}

/** Exit code when the command line itself is wrong. */
const USAGE = 2;

/** Runs one command line (without the program's own name); returns the exit code. Throws what the command throws. */
export async function runCommand(argv: readonly string[], io: Io): Promise<number> {
  let exitCode = 0;
  const program = build(io, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE;
    throw error;
  }
  return exitCode;
}

function build(io: Io, exitWith: (code: number) => void): Command {
  const program = new Command('infralet')
    .description('A Kubernetes container runtime (CRI v1) whose pod sandbox is a machine.')
    .configureOutput({ writeOut: (text) => io.out.write(text), writeErr: (text) => io.err.write(text) })
    .showHelpAfterError('(see infralet --help)')
    .exitOverride();
  const config = '--config <file>';
  const configHelp = 'configuration file (default: /etc/infralet/infralet.yaml, or else the embedded one)';

  program
    .command('serve')
    .description('run the daemon until a signal ends it; machines go on without it')
    .option(config, configHelp)
    .option('--demo', 'run a demo pod and print how its machine booted', false)
    .action(async (options: ConfigOption & { readonly demo: boolean }) => {
      const { serveCommand } = await import('./serve-command.ts');
      await serveCommand(await load(options), io, options);
    });

  program
    .command('ps')
    .description('list sandboxes, also those being made: machines, states, ages, sizes')
    .option(config, configHelp)
    .option('--json', 'as JSON', false)
    .option('--templates', 'the machines that others are cloned from, instead', false)
    .option('--pool', 'the machines that wait for pods, instead', false)
    .action(async (options: ConfigOption & JsonOption & { readonly templates: boolean; readonly pool: boolean }) => {
      if (options.pool) {
        const { psPools } = await import('./ps-pools.ts');
        using admin = await adminClient(await load(options));
        return await psPools(admin, io, options);
      }
      if (options.templates) {
        const { templateList } = await import('./template.ts');
        using admin = await adminClient(await load(options));
        return await templateList(admin, io, options);
      }
      const { ps } = await import('./ps.ts');
      using admin = await adminClient(await load(options));
      await ps(admin, io, options);
    });

  program
    .command('describe <id>')
    .description('show one sandbox: timeline, containers, last error, end of the console')
    .option(config, configHelp)
    .option('--json', 'as JSON', false)
    .action(async (id: string, options: ConfigOption & JsonOption) => {
      const { describe } = await import('./describe.ts');
      using admin = await adminClient(await load(options));
      await describe(admin, id, io, options);
    });

  program
    .command('why <pod>')
    .description(
      'why a pod is as it is, step by step, also one that has failed and is removed; ' +
        'POD: NAMESPACE/NAME, name, pod uid or the beginning of a sandbox id',
    )
    .option(config, configHelp)
    .option('--json', 'as JSON', false)
    .action(async (pod: string, options: ConfigOption & JsonOption) => {
      const { why } = await import('./why.ts');
      using admin = await adminClient(await load(options));
      await why(admin, pod, io, options);
    });

  program
    .command('doctor')
    .description('what this host can do and what is missing, with the command that mends it')
    .option(config, configHelp)
    .option('--json', 'as JSON', false)
    .action(async (options: ConfigOption & JsonOption) => {
      const { doctor } = await import('./doctor.ts');
      const settings = await load(options);
      using admin = await adminClient(settings);
      if (!(await doctor(settings, admin, io, options))) exitWith(1);
    });

  program
    .command('explain')
    .description('what Infralet would do, without doing it')
    .command('size <file>')
    .description('the machine that a pod would get, the offers with their prices, and why others are left out')
    .option(config, configHelp)
    .option('--handler <name>', "runtime handler of the pod (default: the manifest's runtimeClassName)")
    .option('--limit <n>', 'rows of each table', rowCount, 15)
    .option('--json', 'as JSON, complete', false)
    .action(async (file: string, options: ConfigOption & ExplainOptions) => {
      const { explainSizeCommand } = await import('./explain-size.ts');
      const settings = await load(options);
      using admin = await adminClient(settings);
      if (!(await explainSizeCommand(settings, admin, file, io, options))) exitWith(1);
    });

  program
    .command('orphans')
    .description("machines, networks, disks and addresses with this node's name that belong to no sandbox")
    .option(config, configHelp)
    .option('--delete', 'remove those listed', false)
    .option('--json', 'as JSON', false)
    .action(async (options: ConfigOption & JsonOption & { readonly delete: boolean }) => {
      const { orphans } = await import('./orphans.ts');
      using admin = await adminClient(await load(options));
      if (!(await orphans(admin, io, options))) exitWith(1);
    });

  const image = program.command('image').description('the guest image, and container images on this node');
  image
    .command('build')
    .description('build the guest image (the root file system of all machines); cached')
    .option(config, configHelp)
    .option('--json', 'print the result as JSON', false)
    .option('--force', 'build also when nothing changed here: takes newer Debian packages', false)
    .addOption(
      new Option('--target <kind>', 'files: what QEMU machines start from; raw: also one bootable disk, for clouds')
        .choices(['files', 'raw'])
        .default('files'),
    )
    .option('--out <file>', 'where the disk goes (default: disk/disk.raw in the directory of the image)')
    .action(async (options: ConfigOption & ImageBuildOptions) => {
      const { imageBuild } = await import('./image-build.ts');
      await imageBuild(await load(options), io, options);
    });
  image
    .command('publish <provider>')
    .description("upload the guest image to a cloud: aws, gcp; prints the id for the provider's settings")
    .option(config, configHelp)
    .option('--json', 'print the result as JSON', false)
    .option('--set <key=value...>', 'settings of the provider, such as region=eu-central-1 or bucket=my-bucket', [])
    .action(async (provider: string, options: ConfigOption & ImagePublishOptions) => {
      const { imagePublish } = await import('./image-publish.ts');
      await imagePublish(await load(options), provider, io, options);
    });
  image
    .command('load <source>')
    .description("add images from an archive file or oci:DIRECTORY[:TAG] to the node's store")
    .option(config, configHelp)
    .option('--name <name...>', 'name to give to the image (default: those in the source)', [])
    .action(async (source: string, options: ConfigOption & { readonly name: readonly string[] }) => {
      const { imageLoad } = await import('./image-load.ts');
      using admin = await adminClient(await load(options));
      await imageLoad(admin, source, io, { names: options.name });
    });
  image
    .command('list')
    .alias('ls')
    .description("list the images in the node's store")
    .option(config, configHelp)
    .option('--json', 'as JSON', false)
    .action(async (options: ConfigOption & JsonOption) => {
      const { imageList } = await import('./image-list.ts');
      using cri = await criClient(await load(options));
      await imageList(cri, io, options);
    });
  image
    .command('rm <name...>')
    .description("take images out of the node's store")
    .option(config, configHelp)
    .action(async (names: readonly string[], options: ConfigOption) => {
      const { imageRemove } = await import('./image-remove.ts');
      using cri = await criClient(await load(options));
      await imageRemove(cri, names, io);
    });

  const template = program
    .command('template')
    .description('machines that are booted once, for others to be cloned from');
  for (const [name, text] of [
    ['build', 'make the template for machines of the usual size, unless it is there'],
    ['list', 'list the templates with what they take of this node'],
  ] as const) {
    template
      .command(name)
      .description(text)
      .option(config, configHelp)
      .option('--json', 'as JSON', false)
      .action(async (options: ConfigOption & JsonOption) => {
        const { templateBuild, templateList } = await import('./template.ts');
        using admin = await adminClient(await load(options));
        await (name === 'build' ? templateBuild : templateList)(admin, io, options);
      });
  }
  template
    .command('rm <id...>')
    .description('remove templates; machines cloned from them run on')
    .option(config, configHelp)
    .action(async (ids: readonly string[], options: ConfigOption) => {
      const { templateRemove } = await import('./template.ts');
      using admin = await adminClient(await load(options));
      await templateRemove(admin, ids, io);
    });

  const volume = program.command('volume').description("block volumes of the cloud in pods' machines");
  for (const [name, text] of [
    ['attach', "give a volume to a pod's machine, and say by which serial its kernel knows the disk"],
    ['detach', 'take it back'],
  ] as const) {
    volume
      .command(`${name} <pod> <volume>`)
      .description(text)
      .option(config, configHelp)
      .action(async (pod: string, id: string, options: ConfigOption) => {
        const { volumeAttach, volumeDetach } = await import('./volume.ts');
        using admin = await adminClient(await load(options));
        await (name === 'attach' ? volumeAttach : volumeDetach)(admin, pod, id, io);
      });
  }

  const settings = program.command('config').description('the configuration file');
  settings
    .command('check [file]')
    .description('say whether a configuration file is in order, or name every problem with its line')
    .option(config, configHelp)
    .action(async (file: string | undefined, options: ConfigOption) => {
      const { configCheck } = await import('./config-check.ts');
      await configCheck(file ?? options.config, io);
    });
  settings
    .command('schema')
    .description('print the JSON Schema: every key with unit, default and meaning')
    .action(async () => {
      const { configSchema } = await import('./config-schema.ts');
      configSchema(io);
    });
  return program;
}

function rowCount(text: string): number {
  if (/^[1-9]\d*$/.test(text)) return Number(text);
  throw new InvalidArgumentError('a whole number from 1 on is wanted');
}

async function load({ config }: ConfigOption): Promise<Config> {
  const { loadConfig } = await import('../config/load.ts');
  return await loadConfig(config);
}

async function criClient(config: Config): Promise<CriClient> {
  const { connectCri } = await import('./cri-client.ts');
  return connectCri(config.server.socket);
}

async function adminClient(config: Config): Promise<AdminClient> {
  const { connectAdmin } = await import('../admin/client.ts');
  return connectAdmin(config.server.socket);
}

/** An error as the user sees it: one clear line, and what to do next. */
export function printError(io: Io, message: string, hint: string | undefined): void {
  line(io.err, `infralet: ${message}`);
  if (hint !== undefined) line(io.err, `  → ${hint}`);
}
