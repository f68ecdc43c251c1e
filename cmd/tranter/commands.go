package main

import "github.com/spf13/cobra"

// commands are all commands of the program, in the order in which help and documentation list them.
func commands(s streams) []*cobra.Command {
	return []*cobra.Command{
		newRun(s), newUp(s), newRunSingle(s), newInstall(s), newUninstall(s), newStart(s), newStop(s), newRestart(s), newStatus(s), newDrain(s), newUpgrade(s), newTop(s), newJob(s), newRunner(s), newEvents(s), newCost(s),
		newRegister(s), newVerify(s), newUnregister(s), newList(s), newResetToken(s),
		newConfig(s), newMigrate(s), newDocker(s), newMachine(s), newBatch(s),
		newSite(s), newPipeline(s), newCoordinator(s), newDemo(s),
		newExecutor(s), newAgent(s), newDocs(s),
		newArtifactsUploader(s), newArtifactsDownloader(s), newCacheArchiver(s), newCacheExtractor(s),
	}
}
